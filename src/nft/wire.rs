//! Netlink messages and attributes as bytes (linux/netlink.h: `struct nlmsghdr`, `struct nlattr`; both padded to
//! four bytes). Reading never panics: whatever is too short or too long ends the iteration.

#![forbid(unsafe_code)]

use super::uapi::{nfnl, nl};

const MESSAGE_HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Writes messages one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

/// An open message, to be closed by [`Writer::end_message`].
pub struct MessageStart(usize);

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether an attribute went beyond the 65 535 bytes that its length field can hold; such a buffer must not be
    /// sent.
    pub fn too_long(&self) -> bool {
        self.too_long
    }

    /// Opens a message of the nf_tables subsystem.
    pub fn begin(&mut self, message: u8, flags: u16, seq: u32, nfproto: u8) -> MessageStart {
        self.begin_raw((nfnl::SUBSYS_NFTABLES << 8) | u16::from(message), flags, seq, nfproto, 0)
    }

    /// Opens any netfilter message: `struct nlmsghdr`, then `struct nfgenmsg` with its resource id.
    pub fn begin_raw(&mut self, kind: u16, flags: u16, seq: u32, nfproto: u8, resource: u16) -> MessageStart {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[nfproto, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        MessageStart(start)
    }

    /// Closes a message: writes its length.
    pub fn end_message(&mut self, start: MessageStart) {
        let len = self.bytes.len() - start.0;
        let len = u32::try_from(len).unwrap_or_else(|_| {
            self.too_long = true;
            0
        });
        self.bytes[start.0..start.0 + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// The same buffer with nothing in it.
    pub fn emptied(mut self) -> Self {
        self.bytes.clear();
        Self { bytes: self.bytes, too_long: false }
    }

    /// What was written, for good.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds `first` to the sequence number of every message.
    pub fn renumber(&mut self, first: u32) {
        let mut at = 0;
        while let Some(header) = self.bytes.get_mut(at..at + MESSAGE_HEADER) {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let seq = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            header[8..12].copy_from_slice(&seq.wrapping_add(first).to_ne_bytes());
            at = at.saturating_add(padded(usize::try_from(len).unwrap_or(usize::MAX / 2)).max(MESSAGE_HEADER));
        }
    }

    /// Sets NLM_F_ACK in the message that begins at `offset`.
    pub fn request_ack(&mut self, offset: usize) {
        if let Some(flags) = self.bytes.get_mut(offset + 6..offset + 8) {
            let value = u16::from_ne_bytes([flags[0], flags[1]]) | nl::F_ACK;
            flags.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// An attribute of any bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.attribute(kind);
        self.bytes.extend_from_slice(value);
        self.end_attribute(start);
    }

    /// A string, NUL-terminated.
    pub fn put_str(&mut self, kind: u16, value: &str) {
        let start = self.attribute(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.end_attribute(start);
    }

    /// One byte.
    pub fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Two bytes, network order.
    pub fn put_u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Four bytes, network order.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Eight bytes, network order.
    pub fn put_u64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute that holds what `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.attribute(kind | nl::A_NESTED);
        fill(self);
        self.end_attribute(start);
    }

    /// Bytes written elsewhere by a writer, attributes and padding already in them.
    pub fn append(&mut self, other: &Writer) {
        self.bytes.extend_from_slice(&other.bytes);
        self.too_long |= other.too_long;
    }

    fn attribute(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        let [one, two] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[0, 0, one, two]);
        start
    }

    fn end_attribute(&mut self, start: usize) {
        let len = u16::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.too_long = true;
            0
        });
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(padded(self.bytes.len()), 0);
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The nf_tables message type, if the message is of that subsystem.
    pub fn nf_tables(&self) -> Option<u8> {
        let [operation, subsystem] = self.kind.to_le_bytes();
        (u16::from(subsystem) == nfnl::SUBSYS_NFTABLES).then_some(operation)
    }

    /// `nfgen_family` of the `struct nfgenmsg` before the attributes.
    pub fn nfproto(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// What stands behind the `struct nfgenmsg`.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(FAMILY_HEADER..).unwrap_or_default())
    }

    /// The number at the start of an NLMSG_ERROR's body: 0, or an errno with its sign turned.
    pub fn error(&self) -> Option<i32> {
        let bytes = self.body.first_chunk::<4>()?;
        (self.kind == nl::ERROR).then(|| i32::from_ne_bytes(*bytes).saturating_neg())
    }
}

/// The messages of one datagram. What remains of it behind the last of them is a piece of one.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        let header = bytes.first_chunk::<MESSAGE_HEADER>()?;
        let len = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let body = bytes.get(MESSAGE_HEADER..len)?;
        self.0 = bytes.get(padded(len)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        })
    }
}

/// Attributes one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its type, without the flags.
    pub kind: u16,
    /// Its bytes.
    pub value: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The last attribute of that type, as the kernel's parser takes it.
    pub fn find(self, kind: u16) -> Option<Attribute<'a>> {
        self.filter(|attribute| attribute.kind == kind).last()
    }

    /// The 32-bit number of that type.
    pub fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.u32()
    }

    /// The 64-bit number of that type.
    pub fn u64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.u64()
    }

    /// The string of that type.
    pub fn string(self, kind: u16) -> Option<String> {
        self.find(kind)?.string()
    }

    /// Whether the attribute of that type is this string.
    pub fn is_string(self, kind: u16, text: &str) -> bool {
        self.find(kind).is_some_and(|attribute| attribute.is(text))
    }

    /// Whether the last of them ends where all end.
    pub fn are_whole(mut self) -> bool {
        self.by_ref().for_each(drop);
        self.0.is_empty()
    }

    /// What is nested in the attribute of that type.
    pub fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(|attribute| attribute.nested())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let header = self.0.first_chunk::<ATTRIBUTE_HEADER>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = self.0.get(ATTRIBUTE_HEADER..len)?;
        self.0 = self.0.get(padded(len)..).unwrap_or_default();
        Some(Attribute { kind: u16::from_ne_bytes([header[2], header[3]]) & nl::A_TYPE_MASK, value })
    }
}

impl<'a> Attribute<'a> {
    /// As a 32-bit number in network order.
    pub fn u32(self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// As a 64-bit number in network order.
    pub fn u64(self) -> Option<u64> {
        self.value.try_into().ok().map(u64::from_be_bytes)
    }

    /// Whether it is this string.
    pub fn is(self, text: &str) -> bool {
        self.value.strip_suffix(b"\0") == Some(text.as_bytes())
    }

    /// Up to the first NUL; bytes that are no UTF-8 are replaced.
    pub fn string(self) -> Option<String> {
        let text = self.value.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// What it holds, as attributes.
    pub fn nested(self) -> Attributes<'a> {
        Attributes(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new();
        let start = writer.begin(3, nl::F_REQUEST, 7, 2);
        writer.put_str(1, "raw");
        writer.nest(4, |writer| writer.put_u32(2, 300));
        writer.end_message(start);
        let message = Messages(writer.bytes()).next().unwrap();
        assert_eq!(message.nf_tables(), Some(3));
        assert_eq!(message.nfproto(), Some(2));
        assert_eq!(message.attributes().string(1).as_deref(), Some("raw"));
        assert_eq!(message.attributes().nested(4).unwrap().u32(2), Some(300));
    }

    #[test]
    fn an_attribute_beyond_its_length_field_is_told() {
        let mut writer = Writer::new();
        writer.put(1, &vec![0; 70_000]);
        assert!(writer.too_long());
    }

    fn walk(attributes: Attributes<'_>, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        attributes.map(|attribute| 1 + walk(attribute.nested(), depth - 1)).sum()
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages(&bytes) {
                let _ = message.error();
                walk(message.attributes(), 4);
            }
            walk(Attributes(&bytes), 4);
        }
    }
}
