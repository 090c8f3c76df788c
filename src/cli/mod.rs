//! The management CLI: `xtshim probe`, `translate`, `selftest`, `log`.
