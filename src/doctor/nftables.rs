//! Docker's own nftables backend: what stands in the way of moving there.

#![forbid(unsafe_code)]

use super::{Diagnosis, Facts};
use crate::family::Family;

/// Where a daemon keeps that it is part of a swarm.
pub const SWARM: &str = "/var/lib/docker/swarm/docker-state.json";

/// Looks at it, where dockerd has been told to use it.
pub fn check(facts: &Facts<'_>, diagnosis: &mut Diagnosis) {
    let Some(place) = facts.docker.uses_nftables() else { return };
    if facts.host.has(SWARM) {
        diagnosis.find("nftables-swarm", vec![place.clone(), format!("{SWARM} is there")], &[]);
    }
    let mut evidence = ignored(facts);
    if !evidence.is_empty() {
        evidence.push(place);
    }
    diagnosis.find("nftables-docker-user", evidence, &[]);
}

/// Rules of DOCKER-USER that say something, and that no table of the administrator's own says instead.
fn ignored(facts: &Facts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for family in Family::ALL {
        let moved = facts.host.is_live() && crate::migrate::is_applied(family);
        for held in facts.held(family, "filter").filter(|_| !moved) {
            let says = held.of("DOCKER-USER").filter(|line| line.args != ["-j", "RETURN"]);
            lines.extend(says.map(|line| held.evidence(line)));
        }
    }
    lines
}
