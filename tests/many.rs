//! Three proxies on one database behind HAProxy (O1): what changes reaches all of them, and any of them may stop or be
//! killed at any moment.
mod changes;
mod crew;
mod killed;
mod stopped;
