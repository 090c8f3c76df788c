"""Man pages and completions, in the programs that read them."""

import subprocess

import pytest

import roots

DOCS = roots.ROOT / "docs"
PAGES = sorted((DOCS / "man").iterdir())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_rendered_without_a_warning(page):
    done = subprocess.run(["man", "--warnings=all", "-l", str(page)], capture_output=True, text=True, check=True,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
    assert done.stderr == ""
    name = page.name.rsplit(".", 1)[0]
    for word in ("NAME", "SYNOPSIS", "DESCRIPTION", name):
        assert word in done.stdout
    assert "\\f" not in done.stdout and ".SH" not in done.stdout


def shell(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash():
    script = f"""
        source {DOCS}/completions/xtshim.bash
        complete -p xtshim >/dev/null
        ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _xtshim xtshim "${{@: -1}}" "${{@: -2:1}}"; echo "${{COMPREPLY[@]}}"; }}
        ask xtshim ena; ask xtshim enable --sc; ask xtshim enable --scope d
    """
    assert shell("bash", "--norc", "--noprofile", "-c", script) == ["enable", "--scope", "docker"]


def test_zsh(tmp_path):
    script = f"""
        fpath=({DOCS}/completions $fpath); autoload -U compinit; compinit -u -d {tmp_path}/dump
        print $_comps[xtshim]; autoload +X _xtshim; whence -w _xtshim
        source {DOCS}/completions/_xtshim; whence -w _xtshim__subcmd__enable_commands _xtshim_commands
    """
    words = shell("zsh", "-f", "-c", script)
    assert words[0] == "_xtshim" and "none" not in words, words


def test_fish():
    script = f"""
        source {DOCS}/completions/xtshim.fish
        complete -C 'xtshim ena'; complete -C 'xtshim enable --sc'; complete -C 'xtshim enable --scope d'
    """
    lines = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["enable", "--scope", "docker"]
