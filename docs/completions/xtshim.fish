# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_xtshim_global_optspecs
    string join \n h/help V/version
end

function __fish_xtshim_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_xtshim_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_xtshim_using_subcommand
    set -l cmd (__fish_xtshim_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c xtshim -n "__fish_xtshim_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_needs_command" -s V -l version -d 'Print version'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "enable" -d 'Put xtshim in front of iptables'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "disable" -d 'Step out of the way again: the former iptables comes back, as it was chosen then'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "status" -d 'Show whether xtshim stands in front of iptables, what is carried, and what to do next'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "probe" -d 'Show what this kernel and its iptables can do, and why not'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "translate" -d 'Show what a command would be carried as, without doing it'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "selftest" -d 'Try whether Docker 28 would work here, in a throwaway network'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "log" -d 'Show what was rewritten, when, for whom and why'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "flush" -d 'Remove the rules that are carried in this network namespace, or give them to the real iptables'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "doctor" -d 'Name what is wrong between this host\'s network and Docker, prove it, and say what mends it'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "migrate" -d 'Move rules from iptables to where Docker\'s nftables backend heeds them'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "explain" -d 'Say in plain words what a command of iptables means, and what would carry it here'
complete -c xtshim -n "__fish_xtshim_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c xtshim -n "__fish_xtshim_using_subcommand enable" -l scope -d 'For whom' -r -f -a "system\t'Everything that calls iptables, with update-alternatives'
docker\t'Docker alone, with a drop-in that puts a directory first in docker.service\'s PATH'"
complete -c xtshim -n "__fish_xtshim_using_subcommand enable" -l follow-nftables -d 'Restart Docker whenever nftables.service has taken carried rules away (a drop-in for that unit)'
complete -c xtshim -n "__fish_xtshim_using_subcommand enable" -l keep-choice -d 'Leave a choice that was made by hand as it is, and only offer xtshim beside it'
complete -c xtshim -n "__fish_xtshim_using_subcommand enable" -s n -l dry-run -d 'Say what would be done, and do nothing'
complete -c xtshim -n "__fish_xtshim_using_subcommand enable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand disable" -l scope -d 'For whom; without it, for whomever it was enabled' -r -f -a "system\t'Everything that calls iptables, with update-alternatives'
docker\t'Docker alone, with a drop-in that puts a directory first in docker.service\'s PATH'"
complete -c xtshim -n "__fish_xtshim_using_subcommand disable" -l for-removal -d 'Do not remember it: for scripts that remove the package'
complete -c xtshim -n "__fish_xtshim_using_subcommand disable" -s n -l dry-run -d 'Say what would be done, and do nothing'
complete -c xtshim -n "__fish_xtshim_using_subcommand disable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand status" -l json -d 'Print JSON'
complete -c xtshim -n "__fish_xtshim_using_subcommand status" -s h -l help -d 'Print help'
complete -c xtshim -n "__fish_xtshim_using_subcommand probe" -l json -d 'Print JSON instead of a table'
complete -c xtshim -n "__fish_xtshim_using_subcommand probe" -l refresh -d 'Try again instead of believing what was found since the last boot'
complete -c xtshim -n "__fish_xtshim_using_subcommand probe" -s v -l verbose -d 'Show what is behind it: each extension, its kernel options and modules'
complete -c xtshim -n "__fish_xtshim_using_subcommand probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -l carrier -d 'What is to carry the rules' -r -f -a "nft\t'A table of our own in nf_tables'
mangle\t'A chain of our own in the mangle table'
filter\t'A chain of our own in the filter table'"
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -l format -d 'How it is printed: nft or json of the carrier nft, iptables of the others' -r -f -a "nft\t'nft syntax, for `nft -f -`'
json\t'libnftables\' JSON, for `nft -j -f -`'
iptables\t'Commands for a shell'"
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -l restore -d 'Read a file as iptables-save writes it; - is standard input' -r -F
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -l table -d 'Of that file, only this table' -r
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -s 6 -l ipv6 -d 'That file is ip6tables-save\'s'
complete -c xtshim -n "__fish_xtshim_using_subcommand translate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand selftest" -s v -l verbose -d 'Show each command with its answer'
complete -c xtshim -n "__fish_xtshim_using_subcommand selftest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand log" -s f -l follow -d 'Go on with what comes, until Ctrl-C'
complete -c xtshim -n "__fish_xtshim_using_subcommand log" -l json -d 'Print the JSON lines as they stand in the file'
complete -c xtshim -n "__fish_xtshim_using_subcommand log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand flush" -l table -d 'Only this table' -r
complete -c xtshim -n "__fish_xtshim_using_subcommand flush" -l family -d 'Only this family' -r -f -a "ip\t'IPv4'
ip6\t'IPv6'"
complete -c xtshim -n "__fish_xtshim_using_subcommand flush" -l hand-back -d 'Give the rules to the real iptables'
complete -c xtshim -n "__fish_xtshim_using_subcommand flush" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand doctor" -l fix -d 'Do what mends the finding of this name, after showing it' -r
complete -c xtshim -n "__fish_xtshim_using_subcommand doctor" -l root -d 'Look at a copied file tree instead of this host' -r -F
complete -c xtshim -n "__fish_xtshim_using_subcommand doctor" -l json -d 'Print JSON'
complete -c xtshim -n "__fish_xtshim_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and not __fish_seen_subcommand_from docker-user help" -s h -l help -d 'Print help'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and not __fish_seen_subcommand_from docker-user help" -f -a "docker-user" -d 'Print DOCKER-USER, and the chains that it leads to, as a table of nftables before Docker\'s own'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and not __fish_seen_subcommand_from docker-user help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from docker-user" -l fwmark -d 'The mark that stands for ACCEPT; else a bit that nothing here has a use for' -r
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from docker-user" -l output -d 'Write the file there instead of printing it' -r -F
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from docker-user" -l apply -d 'Load the table'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from docker-user" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "docker-user" -d 'Print DOCKER-USER, and the chains that it leads to, as a table of nftables before Docker\'s own'
complete -c xtshim -n "__fish_xtshim_using_subcommand migrate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c xtshim -n "__fish_xtshim_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "enable" -d 'Put xtshim in front of iptables'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "disable" -d 'Step out of the way again: the former iptables comes back, as it was chosen then'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "status" -d 'Show whether xtshim stands in front of iptables, what is carried, and what to do next'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "probe" -d 'Show what this kernel and its iptables can do, and why not'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "translate" -d 'Show what a command would be carried as, without doing it'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "selftest" -d 'Try whether Docker 28 would work here, in a throwaway network'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "log" -d 'Show what was rewritten, when, for whom and why'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "flush" -d 'Remove the rules that are carried in this network namespace, or give them to the real iptables'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "doctor" -d 'Name what is wrong between this host\'s network and Docker, prove it, and say what mends it'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "migrate" -d 'Move rules from iptables to where Docker\'s nftables backend heeds them'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "explain" -d 'Say in plain words what a command of iptables means, and what would carry it here'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and not __fish_seen_subcommand_from enable disable status probe translate selftest log flush doctor migrate explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c xtshim -n "__fish_xtshim_using_subcommand help; and __fish_seen_subcommand_from migrate" -f -a "docker-user" -d 'Print DOCKER-USER, and the chains that it leads to, as a table of nftables before Docker\'s own'
