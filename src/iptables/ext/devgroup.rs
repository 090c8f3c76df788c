//! `-m devgroup`: the groups of the packet's interfaces.

#![forbid(unsafe_code)]

use super::group::Group;
use super::{Extension, Finished, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::nft::expr::{Alternative, Key, Meta};
use std::fmt::Write;

const SOURCE: u8 = 0;

const OPTIONS: &[Opt] = &[Opt::value(SOURCE, &["src-group"]), Opt::value(1, &["dst-group"])];

/// Names of interface groups (ip-link(8)).
const NAMES: &str = "/etc/iproute2/group";

#[derive(Clone, Debug, Default)]
struct DevGroup {
    input: Option<Group>,
    output: Option<Group>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(DevGroup::default())
}

impl DevGroup {
    fn each(&self) -> impl Iterator<Item = (&'static str, &Group)> {
        [("src-group", &self.input), ("dst-group", &self.output)]
            .into_iter()
            .filter_map(|(name, group)| Some((name, group.as_ref()?)))
    }
}

impl Extension for DevGroup {
    fn name(&self) -> &'static str {
        "devgroup"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let (name, slot) =
            if input.id == SOURCE { ("src-group", &mut self.input) } else { ("dst-group", &mut self.output) };
        *slot = Some(Group::parse("devgroup", name, input.value, NAMES, input.inverted)?);
        Ok(())
    }

    fn finish(&mut self, _rule: &Finished<'_>) -> Result<(), Error> {
        let text = "devgroup match: You must specify either '--src-group' or '--dst-group'";
        if self.each().next().is_some() { Ok(()) } else { Err(Error::Parameter(text.to_owned())) }
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        let no_input = self.input.is_some() && matches!(place.chain, "OUTPUT" | "POSTROUTING");
        let no_output = self.output.is_some() && matches!(place.chain, "PREROUTING" | "INPUT");
        if no_input || no_output { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        for (name, group) in self.each() {
            let _ = write!(out, "{} --{name} {}", bang(group.inverted), group.save(form));
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        for (name, group) in self.each() {
            let _ = write!(out, "{} {name} {}", bang(group.inverted), group.text(!style.numeric));
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        // Bits outside of the mask do not count here.
        let test = |group: &Group, meta| Group { value: group.value & group.mask, ..*group }.test(Key::Meta(meta));
        let input = self.input.iter().map(|group| test(group, Meta::Iifgroup));
        Ok(vec![input.chain(self.output.iter().map(|group| test(group, Meta::Oifgroup))).collect()])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
