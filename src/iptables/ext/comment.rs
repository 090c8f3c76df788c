//! `-m comment`: a text for people; matches every packet.

#![forbid(unsafe_code)]

use super::{Extension, Form, Input, ListStyle, Opt, RuleContext, value};
use crate::error::{Error, Refusal};
use crate::iptables::restore::quote;
use crate::nft::expr::Alternative;
use std::fmt::Write;

/// XT_MAX_COMMENT_LEN less its NUL (linux/netfilter/xt_comment.h).
const MAX: usize = 255;

const OPTIONS: &[Opt] = &[Opt::value(0, &["comment"]).plain().required()];

#[derive(Clone, Debug, Default)]
struct Comment {
    text: String,
}

/// Without text.
pub fn new() -> Box<dyn Extension> {
    Box::new(Comment::default())
}

impl Extension for Comment {
    fn name(&self) -> &'static str {
        "comment"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn option(&mut self, input: &Input<'_>) -> Result<(), Error> {
        self.text = value::cut(input.value, MAX).to_owned();
        Ok(())
    }

    fn save(&self, out: &mut String, _form: &Form<'_>) {
        let _ = write!(out, " --comment {}", quote(&self.text));
    }

    fn list(&self, out: &mut String, _style: &ListStyle<'_>) {
        let _ = write!(out, " /* {} */", self.text);
    }

    fn translate(&self, _context: &RuleContext<'_>) -> Result<Vec<Alternative>, Refusal> {
        Ok(vec![Vec::new()])
    }

    fn comment(&self) -> Option<&str> {
        Some(&self.text)
    }

    fn boxed(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }
}
