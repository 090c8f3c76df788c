//! `-j AUDIT`: a record for the audit system. Neither the kernel's xt_AUDIT nor its own record says the type that is
//! given here: it is for those who read the rules.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext};
use crate::error::{Error, Refusal};
use crate::nft::expr::{Alternative, Expr, Log};

const OPTIONS: &[Opt] = &[Opt::value(0, &["type"]).plain().required()];

/// XT_AUDIT_TYPE_* (linux/netfilter/xt_AUDIT.h)
const TYPES: [&str; 3] = ["accept", "drop", "reject"];

#[derive(Clone, Copy, Debug, Default)]
struct Audit {
    kind: &'static str,
}

/// Without options.
pub fn new() -> Box<dyn Extension> {
    Box::new(Audit::default())
}

impl Extension for Audit {
    fn name(&self) -> &'static str {
        "AUDIT"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        let found = TYPES.into_iter().find(|kind| kind.eq_ignore_ascii_case(input.value));
        let bad = || Error::Parameter(format!("Bad action type value \"{}\"", input.value));
        self.kind = found.ok_or_else(bad)?;
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        out.push_str(" --type ");
        out.push_str(self.kind);
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        out.push_str(" AUDIT ");
        out.push_str(self.kind);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![vec![Expr::Log(Log::Audit)]])
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(*self)
    }
}
