//! The conversation with the kernel: dumps, single requests, and transactions.

#![forbid(unsafe_code)]

use super::batch::{Batch, ChainKind, Change, Operation, Policy};
use super::expr::Verdict;
use super::uapi::{chain, counter, data, elem, generation, hook, immediate, msg, nl, reg, rule, table, verdict};
use super::wire::{Attribute, Attributes, Message, Messages, Writer};
use crate::family::Family;
use crate::sys::netlink::Socket;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::rc::Rc;

/// As large as any datagram of a dump (netlink_recvmsg in net/netlink/af_netlink.c) and any single answer.
const RECEIVE_SPACE: usize = 32 * 1024;

/// Larger than the answer to any request for one thing, and than the first datagram of a dump (NLMSG_GOODSIZE in
/// linux/netlink.h).
const SMALL_SPACE: usize = 8 * 1024;

/// A dump that was interrupted by changes this often belongs to a ruleset that never rests.
const DUMP_ATTEMPTS: usize = 100;

/// One NETLINK_NETFILTER socket.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    next_seq: u32,
    /// Closed with the connection: whoever closes one waits until the kernel is done with what others have deleted.
    left: Vec<Socket>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub handle: u64,
    /// `enum nft_table_flags`.
    pub flags: u32,
    /// How many chains and sets it holds.
    pub use_count: u32,
    /// NFTA_TABLE_USERDATA.
    pub userdata: Vec<u8>,
}

/// Where a base chain hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `enum nf_inet_hooks`
    pub num: u32,
    /// Lower is earlier.
    pub priority: i32,
    /// `filter`, `route` or `nat`.
    pub kind: String,
}

impl Hook {
    /// Whether it is a chain of that type.
    pub fn is(&self, kind: ChainKind) -> bool {
        self.kind == kind.nft()
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub handle: u64,
    /// Of a base chain.
    pub hook: Option<Hook>,
    /// Of a base chain.
    pub policy: Option<Policy>,
    /// Packets and bytes that the policy has decided.
    pub counters: Option<(u64, u64)>,
    /// Its rules and the jumps to it, together.
    pub use_count: u32,
    /// NFTA_CHAIN_USERDATA.
    pub userdata: Vec<u8>,
}

/// An expression as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawExpr {
    /// Its type (`payload`, `cmp`, …).
    pub name: String,
    /// Contents of NFTA_EXPR_DATA.
    pub data: Vec<u8>,
}

impl RawExpr {
    /// Its attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.data)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain that it is in.
    pub chain: Rc<str>,
    /// Its number in the kernel.
    pub handle: u64,
    /// NFTA_RULE_USERDATA.
    pub userdata: Vec<u8>,
    /// Sum of its counters.
    pub packets: u64,
    /// Sum of its counters.
    pub bytes: u64,
    /// What it ends with.
    pub verdict: Option<Verdict>,
    /// All of its expressions, where they were asked for.
    pub expressions: Vec<RawExpr>,
}

/// Why a transaction did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitError {
    /// What the kernel answered. ERESTART: the ruleset has changed since the generation that was given.
    pub errno: Errno,
    /// The first operation that failed.
    pub operation: Operation,
    /// Its chain.
    pub chain: Option<String>,
    /// The kernel's answer was lost: all of it may be in force.
    pub in_doubt: bool,
}

impl CommitError {
    /// Whether the ruleset has changed since the generation that was given: read again and retry.
    pub fn is_race(&self) -> bool {
        self.errno == Errno::ERESTART
    }

    fn of(change: &Change, errno: Errno) -> Self {
        let chain = change.chain().map(str::to_owned);
        Self { errno, operation: change.operation(), chain, in_doubt: false }
    }

    /// A failure that no one operation is to blame for.
    pub fn whole(errno: Errno) -> Self {
        Self { errno, operation: Operation::Commit, chain: None, in_doubt: false }
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.in_doubt {
            let why = self.errno.desc();
            return write!(f, "the kernel's answer was lost ({why}): the change may be in force all the same");
        }
        write!(f, "{} failed ({})", self.operation, self.errno.desc())?;
        match &self.chain {
            Some(chain) => write!(f, ": chain {chain}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CommitError {}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl Connection {
    /// Opens the socket. No right is needed to open it; every request needs CAP_NET_ADMIN in the user namespace that
    /// owns the network namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel has no nfnetlink.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        Ok(Self { socket, buffer: Vec::with_capacity(SMALL_SPACE), next_seq: 1, left: Vec::new() })
    }

    /// The generation of the namespace's ruleset: changes with every transaction.
    ///
    /// # Errors
    /// EINVAL where the kernel has no nf_tables, EPERM without the right.
    pub fn generation(&mut self) -> io::Result<u32> {
        let found = self.request(
            msg::GETGEN,
            0,
            nl::F_REQUEST,
            |_| {},
            |message| {
                (message.nf_tables() == Some(msg::NEWGEN)).then(|| message.attributes().u32(generation::ID)).flatten()
            },
        )?;
        only(found)
    }

    /// The same, when the transaction that made it is over. The kernel tells a generation a moment before the rules are
    /// that one's (nf_tables_commit in net/netfilter/nf_tables_api.c): a dump that began in between would be of two
    /// rulesets, and both its generations the same.
    ///
    /// # Errors
    /// As [`Connection::generation`].
    pub fn settled_generation(&mut self) -> io::Result<u32> {
        let generation = self.generation()?;
        // Refused for its generation, by one who waits for whoever changes something (nf_tables_valid_genid). 0 is none.
        let past = match generation.wrapping_sub(1) {
            0 => u32::MAX,
            past => past,
        };
        let seq = self.take_seqs(1);
        let [begin, ..] = Batch::new().datagram(seq, Some(past), false);
        self.socket.send(&begin)?;
        // The refusal is queued by then. Whoever asks next passes it over if it could not be had.
        let _ = self.socket.receive(&mut self.buffer, false);
        Ok(generation)
    }

    /// One table, or `None` where there is no such.
    ///
    /// # Errors
    /// EINVAL where the kernel has no nf_tables, EPERM without the right.
    pub fn table(&mut self, family: Family, name: &str) -> io::Result<Option<TableInfo>> {
        let fill = |out: &mut Writer| out.put_str(table::NAME, name);
        match self.request(msg::GETTABLE, family.nfproto(), nl::F_REQUEST, fill, |message| read_table(family, message))
        {
            Ok(found) => only(found).map(Some),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The family's tables.
    ///
    /// # Errors
    /// As [`Connection::table`]; EINTR when the ruleset did not rest long enough to be read.
    pub fn tables(&mut self, family: Family) -> io::Result<Vec<TableInfo>> {
        self.dump(msg::GETTABLE, family, |_| {}, |message| read_table(family, message))
    }

    /// A table's chains, in the kernel's order; empty where there is no such table.
    ///
    /// # Errors
    /// As [`Connection::tables`].
    pub fn chains(&mut self, family: Family, table: &str) -> io::Result<Vec<ChainInfo>> {
        self.dump(msg::GETCHAIN, family, |_| {}, |message| read_chain(family, table, message))
    }

    /// One chain, or `None` where there is no such, or no such table.
    ///
    /// # Errors
    /// As [`Connection::table`].
    pub fn chain(&mut self, family: Family, table: &str, name: &str) -> io::Result<Option<ChainInfo>> {
        let fill = |out: &mut Writer| {
            out.put_str(chain::TABLE, table);
            out.put_str(chain::NAME, name);
        };
        let read = |message: Message<'_>| read_chain(family, table, message);
        match self.request(msg::GETCHAIN, family.nfproto(), nl::F_REQUEST, fill, read) {
            Ok(found) => only(found).map(Some),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A table's rules, or one chain's, in order, with all of their expressions; empty where there is no such table or
    /// chain.
    ///
    /// # Errors
    /// As [`Connection::tables`].
    pub fn rules(&mut self, family: Family, table: &str, chain: Option<&str>) -> io::Result<Vec<RuleInfo>> {
        let mut names = Names::default();
        self.dump_rules(family, table, chain, DUMP_ATTEMPTS, |parts: RuleParts<'_>| {
            Some(RuleInfo { expressions: read_expressions(parts.expressions), ..parts.read(&mut names)? })
        })
    }

    /// The same without their expressions, and only the rules whose user data `wanted` wants.
    ///
    /// # Errors
    /// As [`Connection::table`]; EINTR when the ruleset has changed meanwhile, with which its generation has.
    pub fn rules_in_short(
        &mut self,
        family: Family,
        table: &str,
        chain: Option<&str>,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Vec<RuleInfo>> {
        let mut names = Names::default();
        let read = |parts: RuleParts<'_>| wanted(parts.userdata).then(|| parts.read(&mut names)).flatten();
        self.dump_rules(family, table, chain, 1, read)
    }

    /// Whether all user data of a table's first rules is as `wanted`: of as many as fit into the first datagram of a dump,
    /// which is some twenty.
    ///
    /// # Errors
    /// As [`Connection::tables`].
    pub fn first_rules_are(&mut self, family: Family, table: &str, wanted: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
        // A dump that nobody reads to its end would be in the way of what is asked next.
        let mut apart = Self::open()?;
        apart.ask(msg::GETRULE, family.nfproto(), nl::F_REQUEST | nl::F_DUMP, |out| out.put_str(rule::TABLE, table))?;
        apart.socket.receive(&mut apart.buffer, true)?;
        let mut messages = Messages(&apart.buffer);
        let mut all = true;
        for message in messages.by_ref() {
            let attributes = message.attributes();
            if is_of(family, message, msg::NEWRULE) && attributes.is_string(rule::TABLE, table) {
                all &= attributes.find(rule::USERDATA).is_some_and(|found| wanted(found.value));
            }
        }
        let heard = messages.0.is_empty();
        self.left.push(apart.socket);
        if heard { Ok(all) } else { Err(Errno::EBADMSG.into()) }
    }

    fn dump_rules(
        &mut self,
        family: Family,
        table: &str,
        chain: Option<&str>,
        attempts: usize,
        mut read: impl FnMut(RuleParts<'_>) -> Option<RuleInfo>,
    ) -> io::Result<Vec<RuleInfo>> {
        let fill = |out: &mut Writer| {
            out.put_str(rule::TABLE, table);
            if let Some(chain) = chain {
                out.put_str(rule::CHAIN, chain);
            }
        };
        self.dump_within(attempts, msg::GETRULE, family, fill, |message: Message<'_>| {
            is_of(family, message, msg::NEWRULE).then_some(())?;
            let parts = RuleParts::of(message.attributes());
            // The kernel need not have heeded all of the question.
            let says = |part: Option<Attribute<'_>>, name| part.is_some_and(|part| part.is(name));
            let asked = says(parts.table, table) && chain.is_none_or(|chain| says(parts.chain, chain));
            asked.then(|| read(parts)).flatten()
        })
    }

    /// The members of a set: each key as the kernel holds it, and whether it ends an interval.
    ///
    /// # Errors
    /// As [`Connection::tables`]; ENOENT where there is no such set.
    pub fn set_elements(&mut self, family: Family, table: &str, set: &str) -> io::Result<Vec<(Vec<u8>, bool)>> {
        let fill = |out: &mut Writer| {
            out.put_str(elem::LIST_TABLE, table);
            out.put_str(elem::LIST_SET, set);
        };
        let found = self.dump(msg::GETSETELEM, family, fill, |message| read_elements(family, message))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// What a verdict map jumps to, by address. What it holds besides is an error (EBADMSG).
    ///
    /// # Errors
    /// As [`Connection::tables`]; ENOENT where there is no such map.
    pub fn verdict_map(&mut self, family: Family, table: &str, map: &str) -> io::Result<HashMap<IpAddr, String>> {
        let fill = |out: &mut Writer| {
            out.put_str(elem::LIST_TABLE, table);
            out.put_str(elem::LIST_SET, map);
        };
        let found = self.dump(msg::GETSETELEM, family, fill, |message| Some(read_verdicts(family, message)))?;
        found.into_iter().flatten().collect::<Option<_>>().ok_or_else(|| Errno::EBADMSG.into())
    }

    /// Applies a batch as one transaction: all of it or nothing. With a `generation`, only if the ruleset is still
    /// that one.
    ///
    /// # Errors
    /// The first operation that failed, or [`Operation::Commit`] for the transaction as a whole: ERESTART when the
    /// generation differs, EMSGSIZE when the batch is larger than the send buffer can be made. Where the kernel's answer
    /// was lost, and the ruleset is not as it was, the error is [in doubt](CommitError::in_doubt).
    pub fn commit(&mut self, batch: Batch, generation: Option<u32>) -> Result<(), CommitError> {
        self.transact(batch, generation, true)
    }

    /// Has the kernel prepare a batch and throw it away. Modules that it loads for it stay.
    ///
    /// # Errors
    /// As [`Connection::commit`].
    pub fn check(&mut self, batch: Batch) -> Result<(), CommitError> {
        self.transact(batch, None, false)
    }

    fn transact(&mut self, mut batch: Batch, generation: Option<u32>, finish: bool) -> Result<(), CommitError> {
        if let Some(change) = batch.malformed() {
            return Err(CommitError::of(change, Errno::EINVAL));
        }
        if batch.too_long() {
            return Err(CommitError::whole(Errno::EMSGSIZE));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.socket.want_short_answers();
        self.make_room();
        let first = self.take_seqs(batch.message_count() + 2);
        let request = batch.datagram(first, generation, finish);
        let request = request.each_ref().map(|part| IoSlice::new(part));
        self.socket.send_gathered(&request).map_err(|error| CommitError::whole(errno_of(&error)))?;
        match self.answers(first, batch.message_count()) {
            Outcome::Applied => Ok(()),
            Outcome::Failed(number, errno) => {
                let owner = number.checked_sub(1).and_then(|message| batch.owner(message));
                Err(owner.map_or_else(|| CommitError::whole(errno), |change| CommitError::of(change, errno)))
            }
            Outcome::Lost(errno) => {
                self.start_over();
                // Each transaction makes another generation.
                let untouched =
                    generation.is_some_and(|generation| self.generation().is_ok_and(|now| now == generation));
                Err(CommitError { in_doubt: finish && !untouched, ..CommitError::whole(errno) })
            }
        }
    }

    /// What became of a batch. All answers are queued by the time that the request is sent. A transaction that fails as a
    /// whole when it is committed is told at its beginning, and acknowledgements follow: so a failure outweighs those.
    fn answers(&mut self, first: u32, operations: usize) -> Outcome {
        let mut failed: Option<(usize, Errno)> = None;
        let mut lost = None;
        let mut acknowledged = false;
        loop {
            match self.socket.receive(&mut self.buffer, false).map_err(|error| errno_of(&error)) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => break,
                // There were more failures than the queue holds, and what it does hold says more.
                Err(Errno::ENOBUFS) if lost.is_none() => {
                    lost = Some(Errno::ENOBUFS);
                    continue;
                }
                Err(errno) => {
                    lost = Some(errno);
                    break;
                }
            }
            let mut messages = Messages(&self.buffer);
            for message in messages.by_ref() {
                let Ok(number) = usize::try_from(message.seq.wrapping_sub(first)) else { continue };
                match message.error() {
                    Some(_) if number > operations => {}
                    Some(0) => acknowledged |= number == operations,
                    Some(errno) => failed = failed.or(Some((number, Errno::from_raw(errno)))),
                    None => {}
                }
            }
            if self.buffer.is_empty() || !messages.0.is_empty() {
                lost = Some(Errno::EBADMSG);
                break;
            }
        }
        match (failed, lost) {
            (Some((number, errno)), _) => Outcome::Failed(number, errno),
            (None, Some(errno)) => Outcome::Lost(errno),
            (None, None) if acknowledged => Outcome::Applied,
            (None, None) => Outcome::Lost(Errno::ENODATA),
        }
    }

    /// Another socket: what has not been read of the old one would be in the way of what is asked next, and a dump that
    /// was not read to its end of the next one (EBUSY).
    fn start_over(&mut self) {
        let _ = self.on_another_socket();
    }

    fn on_another_socket(&mut self) -> io::Result<()> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        self.left.push(std::mem::replace(&mut self.socket, socket));
        Ok(())
    }

    /// Leaves a dump that changes have got into. Without a descriptor to spare it is read to its end.
    fn leave_dump(&mut self, seq: u32) {
        if self.on_another_socket().is_ok() {
            return;
        }
        let ends = |message: Message<'_>| message.seq == seq && matches!(message.kind, nl::DONE | nl::ERROR);
        while !Messages(&self.buffer).any(ends) && self.socket.receive(&mut self.buffer, true).is_ok() {}
    }

    fn dump<T>(
        &mut self,
        message: u8,
        family: Family,
        fill: impl Fn(&mut Writer),
        read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.dump_within(DUMP_ATTEMPTS, message, family, fill, read)
    }

    /// The same, asked for so often at most because changes got into it.
    fn dump_within<T>(
        &mut self,
        attempts: usize,
        message: u8,
        family: Family,
        fill: impl Fn(&mut Writer),
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.make_room();
        let mut interrupted = 0;
        for _ in 0..DUMP_ATTEMPTS {
            match self.request(message, family.nfproto(), nl::F_REQUEST | nl::F_DUMP, &fill, &mut read) {
                Err(error) if errno_of(&error) == Errno::EINTR => {
                    interrupted += 1;
                    if interrupted == attempts {
                        break;
                    }
                }
                Err(error) if errno_of(&error) == Errno::ENOBUFS => self.start_over(),
                other => return other,
            }
        }
        Err(Errno::EINTR.into())
    }

    /// Sends a request, and gives its number.
    fn ask(&mut self, message: u8, nfproto: u8, flags: u16, fill: impl Fn(&mut Writer)) -> io::Result<u32> {
        let seq = self.take_seqs(1);
        let mut out = Writer::new();
        let start = out.begin(message, flags, seq, nfproto);
        fill(&mut out);
        out.end_message(start);
        self.socket.send(out.bytes())?;
        Ok(seq)
    }

    /// One request and its answers: several for a dump, else one.
    fn request<T>(
        &mut self,
        message: u8,
        nfproto: u8,
        flags: u16,
        fill: impl Fn(&mut Writer),
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let seq = self.ask(message, nfproto, flags, fill)?;
        let is_dump = flags & nl::F_DUMP == nl::F_DUMP;
        // Each NFT_MSG_NEW… comes right before its NFT_MSG_GET… (enum nf_tables_msg_types).
        let mut answer = Answer { seq, kind: message - 1, is_dump, found: Vec::new() };
        loop {
            let received = self.socket.receive(&mut self.buffer, true);
            match received.and_then(|()| answer.hear(&self.buffer, &mut read)) {
                Ok(false) => {}
                Ok(true) => return Ok(answer.found),
                Err(error) => {
                    // Of an answer that could not be read, or is not worth it, there may be more.
                    match errno_of(&error) {
                        Errno::EINTR => self.leave_dump(seq),
                        Errno::EBADMSG | Errno::EMSGSIZE | Errno::ETIMEDOUT => self.start_over(),
                        _ => {}
                    }
                    return Err(error);
                }
            }
        }
    }

    /// What is in the buffer is not kept.
    fn make_room(&mut self) {
        if self.buffer.capacity() < RECEIVE_SPACE {
            self.buffer = Vec::with_capacity(RECEIVE_SPACE);
        }
    }

    fn take_seqs(&mut self, count: usize) -> u32 {
        let first = self.next_seq;
        self.next_seq = first.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }
}

/// What became of a batch.
enum Outcome {
    Applied,
    /// The number of the first message that failed, 0 for the batch's beginning.
    Failed(usize, Errno),
    /// The kernel has not said, or it could not be heard.
    Lost(Errno),
}

/// The answer to one request, as it comes in.
struct Answer<T> {
    seq: u32,
    kind: u8,
    is_dump: bool,
    found: Vec<T>,
}

impl<T> Answer<T> {
    /// Takes in one datagram. Whether it was the last.
    ///
    /// # Errors
    /// What the kernel has answered; EINTR for a dump that changes got into, ENOBUFS for one that something of was lost,
    /// EBADMSG for anything that is not as the kernel writes it: a part of an answer is none.
    fn hear(&mut self, datagram: &[u8], read: &mut impl FnMut(Message<'_>) -> Option<T>) -> io::Result<bool> {
        if datagram.is_empty() {
            return Err(Errno::EBADMSG.into());
        }
        let mut messages = Messages(datagram);
        for message in messages.by_ref() {
            if message.seq != self.seq {
                continue;
            }
            // Whatever comes then is of another ruleset.
            if message.flags & nl::F_DUMP_INTR != 0 {
                return Err(Errno::EINTR.into());
            }
            let ended = match message.kind {
                nl::ERROR => Some(message.error().unwrap_or(Errno::EBADMSG as i32)),
                nl::OVERRUN => Some(Errno::ENOBUFS as i32),
                nl::DONE => Some(done_error(message)),
                _ if message.nf_tables() == Some(self.kind) && message.attributes().are_whole() => {
                    self.found.extend(read(message));
                    (!self.is_dump).then_some(0)
                }
                _ => Some(Errno::EBADMSG as i32),
            };
            match ended {
                Some(0) => return Ok(true),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
        if messages.0.is_empty() { Ok(false) } else { Err(Errno::EBADMSG.into()) }
    }
}

/// What a request for one thing has found.
fn only<T>(found: Vec<T>) -> io::Result<T> {
    found.into_iter().next().ok_or_else(|| Errno::EBADMSG.into())
}

/// NLMSG_DONE carries an error in newer kernels: 0, or an errno with its sign turned.
fn done_error(message: Message<'_>) -> i32 {
    message.body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes).min(0).saturating_neg())
}

fn is_of(family: Family, message: Message<'_>, kind: u8) -> bool {
    message.nf_tables() == Some(kind) && message.nfproto() == Some(family.nfproto())
}

fn bytes_of(attributes: Attributes<'_>, kind: u16) -> Vec<u8> {
    attributes.find(kind).map(|attribute| attribute.value.to_vec()).unwrap_or_default()
}

fn read_table(family: Family, message: Message<'_>) -> Option<TableInfo> {
    let attributes = message.attributes();
    is_of(family, message, msg::NEWTABLE).then_some(())?;
    Some(TableInfo {
        name: attributes.string(table::NAME)?,
        handle: attributes.u64(table::HANDLE).unwrap_or_default(),
        flags: attributes.u32(table::FLAGS).unwrap_or_default(),
        use_count: attributes.u32(table::USE).unwrap_or_default(),
        userdata: bytes_of(attributes, table::USERDATA),
    })
}

/// What all of a datagram's messages say, each taken for an answer to every question: the rules among it.
pub(super) fn read_all(bytes: &[u8]) -> Vec<RuleInfo> {
    let mut rules = Vec::new();
    for message in Messages(bytes) {
        let _ = (message.error(), done_error(message));
        for family in Family::ALL {
            let table = read_table(family, message).map(|table| table.name).unwrap_or_default();
            let _ =
                (read_chain(family, &table, message), read_elements(family, message), read_verdicts(family, message));
        }
        let parts = RuleParts::of(message.attributes());
        let (handle, userdata) = (parts.handle.unwrap_or_default(), parts.userdata.to_vec());
        let expressions = read_expressions(parts.expressions);
        // What is sent has no handle, what is listed has.
        rules.push(parts.read(&mut Names::default()).unwrap_or(RuleInfo {
            chain: "".into(),
            handle,
            userdata,
            packets: 0,
            bytes: 0,
            verdict: None,
            expressions,
        }));
    }
    rules
}

fn read_chain(family: Family, table: &str, message: Message<'_>) -> Option<ChainInfo> {
    let attributes = message.attributes();
    is_of(family, message, msg::NEWCHAIN).then_some(())?;
    (attributes.string(chain::TABLE)? == table).then_some(())?;
    let hook = attributes.nested(chain::HOOK).and_then(|nested| {
        Some(Hook {
            num: nested.u32(hook::HOOKNUM)?,
            priority: nested.u32(hook::PRIORITY)?.cast_signed(),
            kind: attributes.string(chain::TYPE)?,
        })
    });
    Some(ChainInfo {
        name: attributes.string(chain::NAME)?,
        handle: attributes.u64(chain::HANDLE)?,
        hook,
        policy: attributes.u32(chain::POLICY).and_then(Policy::from_number),
        counters: attributes.nested(chain::COUNTERS).and_then(read_counter),
        use_count: attributes.u32(chain::USE).unwrap_or_default(),
        userdata: bytes_of(attributes, chain::USERDATA),
    })
}

fn read_counter(attributes: Attributes<'_>) -> Option<(u64, u64)> {
    let (mut packets, mut bytes) = (None, None);
    for attribute in attributes {
        match attribute.kind {
            counter::PACKETS => packets = attribute.u64(),
            counter::BYTES => bytes = attribute.u64(),
            _ => {}
        }
    }
    Some((packets?, bytes?))
}

/// A rule's attributes, looked through once: there are many rules.
#[derive(Clone, Copy, Default)]
struct RuleParts<'a> {
    table: Option<Attribute<'a>>,
    chain: Option<Attribute<'a>>,
    handle: Option<u64>,
    userdata: &'a [u8],
    expressions: Attributes<'a>,
}

/// The chain that was named last: rules come chain by chain.
#[derive(Default)]
struct Names(Rc<str>);

impl Names {
    fn of(&mut self, name: Attribute<'_>) -> Option<Rc<str>> {
        if !name.is(&self.0) {
            self.0 = name.string()?.into();
        }
        Some(Rc::clone(&self.0))
    }
}

impl<'a> RuleParts<'a> {
    fn of(attributes: Attributes<'a>) -> Self {
        let mut parts = Self::default();
        for attribute in attributes {
            match attribute.kind {
                rule::TABLE => parts.table = Some(attribute),
                rule::CHAIN => parts.chain = Some(attribute),
                rule::HANDLE => parts.handle = attribute.u64(),
                rule::USERDATA => parts.userdata = attribute.value,
                rule::EXPRESSIONS => parts.expressions = attribute.nested(),
                _ => {}
            }
        }
        parts
    }

    /// All of it but its expressions. `None` for what has no chain or no handle.
    fn read(self, names: &mut Names) -> Option<RuleInfo> {
        let (mut packets, mut bytes, mut verdict) = (0_u64, 0_u64, None);
        for item in self.expressions {
            let (mut name, mut contents) = (None, None);
            for part in item.nested() {
                match part.kind {
                    data::EXPR_NAME => name = part.value.strip_suffix(b"\0"),
                    data::EXPR_DATA => contents = Some(part.nested()),
                    _ => {}
                }
            }
            match name {
                Some(b"counter") => {
                    let (more, longer) = contents.and_then(read_counter).unwrap_or_default();
                    packets = packets.wrapping_add(more);
                    bytes = bytes.wrapping_add(longer);
                }
                Some(b"immediate") => verdict = contents.and_then(read_verdict).or(verdict),
                _ => {}
            }
        }
        let chain = names.of(self.chain?)?;
        let (handle, userdata) = (self.handle?, self.userdata.to_vec());
        Some(RuleInfo { chain, handle, userdata, packets, bytes, verdict, expressions: Vec::new() })
    }
}

fn read_expressions(items: Attributes<'_>) -> Vec<RawExpr> {
    items.filter_map(|item| read_expr(item.nested())).collect()
}

fn read_elements(family: Family, message: Message<'_>) -> Option<Vec<(Vec<u8>, bool)>> {
    is_of(family, message, msg::NEWSETELEM).then_some(())?;
    let elements = message.attributes().nested(elem::LIST_ELEMENTS)?;
    Some(
        elements
            .filter_map(|element| {
                let attributes = element.nested();
                let key = attributes.nested(elem::KEY)?.find(data::VALUE)?.value.to_vec();
                let ends = attributes.u32(elem::FLAGS).is_some_and(|flags| flags & elem::INTERVAL_END != 0);
                Some((key, ends))
            })
            .collect(),
    )
}

/// Each element: `None` for one that is no jump for an address.
fn read_verdicts(family: Family, message: Message<'_>) -> Vec<Option<(IpAddr, String)>> {
    let elements = message.attributes().nested(elem::LIST_ELEMENTS).filter(|_| is_of(family, message, msg::NEWSETELEM));
    let read = |attributes: Attributes<'_>| {
        let key = attributes.nested(elem::KEY)?.find(data::VALUE)?.value;
        let address = match family {
            Family::V4 => IpAddr::from(<[u8; 4]>::try_from(key).ok()?),
            Family::V6 => IpAddr::from(<[u8; 16]>::try_from(key).ok()?),
        };
        match read_verdict_data(attributes.nested(elem::DATA)?)? {
            Verdict::Jump(chain) => Some((address, chain)),
            _ => None,
        }
    };
    elements.into_iter().flatten().map(|element| read(element.nested())).collect()
}

fn read_expr(attributes: Attributes<'_>) -> Option<RawExpr> {
    Some(RawExpr { name: attributes.string(data::EXPR_NAME)?, data: bytes_of(attributes, data::EXPR_DATA) })
}

fn read_verdict(attributes: Attributes<'_>) -> Option<Verdict> {
    (attributes.u32(immediate::DREG)? == reg::VERDICT).then_some(())?;
    read_verdict_data(attributes.nested(immediate::DATA)?)
}

fn read_verdict_data(attributes: Attributes<'_>) -> Option<Verdict> {
    let found = attributes.nested(data::VERDICT)?;
    let chain = || found.string(data::VERDICT_CHAIN);
    match found.u32(data::VERDICT_CODE)?.cast_signed() {
        verdict::ACCEPT => Some(Verdict::Accept),
        verdict::DROP => Some(Verdict::Drop),
        verdict::RETURN => Some(Verdict::Return),
        verdict::JUMP => chain().map(Verdict::Jump),
        verdict::GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::uapi::nfnl;
    use super::*;

    const SEQ: u32 = 7;

    fn message(kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut out = Writer::new();
        let start = out.begin_raw(kind, flags, seq, Family::V4.nfproto(), 0);
        fill(&mut out);
        out.end_message(start);
        out.into_bytes()
    }

    fn rule(handle: u64) -> Vec<u8> {
        message(nfnl::SUBSYS_NFTABLES << 8 | u16::from(msg::NEWRULE), 0, SEQ, |out| {
            out.put_str(rule::TABLE, "xtshim-raw");
            out.put_str(rule::CHAIN, "OUTPUT");
            out.put_u64(rule::HANDLE, handle);
            out.put(rule::USERDATA, b"text");
        })
    }

    /// The four bytes of a family's header are the number here.
    fn done(flags: u16, seq: u32) -> Vec<u8> {
        let mut bytes = message(nl::DONE, flags, seq, |_| {});
        bytes[16..20].copy_from_slice(&0_i32.to_ne_bytes());
        bytes
    }

    /// The handles in an answer that comes in these datagrams; `None` if it has no end.
    fn hear(datagrams: &[Vec<u8>]) -> Option<Result<Vec<u64>, Errno>> {
        let mut answer = Answer { seq: SEQ, kind: msg::NEWRULE, is_dump: true, found: Vec::new() };
        let mut read = |message: Message<'_>| RuleParts::of(message.attributes()).handle;
        for datagram in datagrams {
            match answer.hear(datagram, &mut read) {
                Ok(false) => {}
                Ok(true) => return Some(Ok(answer.found)),
                Err(error) => return Some(Err(errno_of(&error))),
            }
        }
        None
    }

    #[test]
    fn a_dump_is_all_of_its_datagrams() {
        let two = [rule(1), rule(2)].concat();
        assert_eq!(hear(&[two.clone(), rule(3), done(0, SEQ)]), Some(Ok(vec![1, 2, 3])));
        // Newer kernels may put the end behind the last of them.
        assert_eq!(hear(&[two.clone(), [rule(3), done(0, SEQ)].concat()]), Some(Ok(vec![1, 2, 3])));
        assert_eq!(hear(&[done(0, SEQ)]), Some(Ok(vec![])));
        // What was asked before is passed over, and does not end it.
        assert_eq!(hear(&[done(0, SEQ - 1), two.clone(), done(0, SEQ)]), Some(Ok(vec![1, 2])));
        assert_eq!(hear(&[two.clone(), done(0, SEQ - 1)]), None);
        assert_eq!(hear(&[two]), None);
    }

    #[test]
    fn a_datagram_that_is_cut_off_is_no_answer() {
        let (whole, end) = ([rule(1), rule(2)].concat(), done(0, SEQ));
        for at in 0..whole.len() {
            let heard = hear(&[whole[..at].to_vec(), end.clone()]);
            // Between two messages there is nothing to see. No kernel sends a part of a datagram.
            let wanted = if at == whole.len() / 2 { Ok(vec![1]) } else { Err(Errno::EBADMSG) };
            assert_eq!(heard, Some(wanted), "cut at {at}");
        }
    }

    #[test]
    fn a_length_that_is_not_so_is_no_answer() {
        let (whole, end) = ([rule(1), rule(2)].concat(), done(0, SEQ));
        let real = whole.len() / 2;
        for message in [0, real] {
            for len in (0..=whole.len() + 8).chain([usize::MAX >> 32, 1 << 31]) {
                let mut bytes = whole.clone();
                bytes[message..message + 4].copy_from_slice(&(len as u32).to_ne_bytes());
                let heard = hear(&[bytes, end.clone()]);
                // The length goes to its end without the padding, which a kernel may leave out.
                let right = len.next_multiple_of(4) == real || message == 0 && len.next_multiple_of(4) == whole.len();
                assert!(right || heard == Some(Err(Errno::EBADMSG)), "{len} at {message}: {heard:?}");
            }
        }
    }

    #[test]
    fn what_was_lost_is_told() {
        let overrun = message(nl::OVERRUN, 0, SEQ, |_| {});
        assert_eq!(hear(&[rule(1), overrun, done(0, SEQ)]), Some(Err(Errno::ENOBUFS)));
        assert_eq!(hear(&[rule(1), done(nl::F_DUMP_INTR, SEQ)]), Some(Err(Errno::EINTR)));
        let table = message(nfnl::SUBSYS_NFTABLES << 8 | u16::from(msg::NEWTABLE), 0, SEQ, |_| {});
        assert_eq!(hear(&[table, done(0, SEQ)]), Some(Err(Errno::EBADMSG)), "an answer to another question");
        let mut failed = done(0, SEQ);
        failed[16..20].copy_from_slice(&(-(Errno::ENOMEM as i32)).to_ne_bytes());
        assert_eq!(hear(&[rule(1), failed]), Some(Err(Errno::ENOMEM)));
    }

    #[test]
    fn a_failure_in_doubt_says_so() {
        let lost = CommitError { in_doubt: true, ..CommitError::whole(Errno::ENOBUFS) };
        assert!(lost.to_string().contains("may be in force"), "{lost}");
        assert_eq!(CommitError::whole(Errno::ENOBUFS).to_string(), "COMMIT failed (No buffer space available)");
    }
}
