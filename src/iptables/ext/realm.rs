//! `-m realm`: the realm of the packet's route.

#![forbid(unsafe_code)]

use super::group::Group;
use super::{Extension, Form, Input, ListStyle, Opt, Place, RuleContext};
use crate::error::{Error, Refusal};
use crate::iptables::rule::bang;
use crate::nft::circumstance::Circumstance;
use crate::nft::expr::{Alternative, Key};
use std::fmt::Write;

const OPTIONS: &[Opt] = &[Opt::value(0, &["realm"]).required()];

/// Names of realms (ip-route(8)).
const NAMES: &str = "/etc/iproute2/rt_realms";

#[derive(Clone, Debug, Default)]
struct Realm {
    realm: Option<Group>,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Realm::default())
}

impl Extension for Realm {
    fn name(&self) -> &'static str {
        "realm"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.realm = Some(Group::parse("realm", "realm", input.value, NAMES, input.inverted)?);
        Ok(())
    }

    fn validate(&self, place: &Place<'_>) -> Result<(), Error> {
        if place.chain == "PREROUTING" { Err(place.invalid()) } else { Ok(()) }
    }

    fn save(&self, out: &mut String, form: &Form<'_>) {
        if let Some(realm) = &self.realm {
            let _ = write!(out, "{} --realm {}", bang(realm.inverted), realm.save(form));
        }
    }

    fn list(&self, out: &mut String, style: &ListStyle<'_>) {
        if let Some(realm) = &self.realm {
            let _ = write!(out, "{} realm {}", bang(realm.inverted), realm.text(!style.numeric));
        }
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        let test = |realm: &Group| realm.test(Key::Circumstance(Circumstance::Realm));
        Ok(vec![self.realm.iter().map(test).collect()])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
