//! One connection: the machine (no I/O, no tokio) and the driver, the only file that awaits sockets.
//!
//! [`machine`] holds the state; [`client`] and [`server_side`] its two directions; [`seal`] and [`open`] turn plans
//! and rows into bytes, [`describe`] tells the client of both, [`built`] finds cells inside JSON, arrays and rows, [`show`] writes what
//! they open to; [`queue`] knows which reply belongs to what, [`names`] which statement a name
//! means, and [`named`] what cursors and statements prepared in SQL stand for; [`ask`] asks the server about names.
//! [`copied`] has the rows of INSERT ... SELECT between its two steps, [`each`] those that arrays are unnested to.
//! [`copy`] says whose rows a COPY carries; [`copy_in`] and [`copy_out`] carry them; [`whose`] says for which tenant a row is.
//! [`renewed`] plans statements again when the policy has changed.
//! [`schema`] says against which schema statements are planned, [`define`] runs what follows DDL, [`work`] is what the
//! machine leaves to the driver; [`switched`] prepares statements again whose columns were sealed in place.
pub mod ask;
pub mod built;
mod cells;
pub mod client;
mod copied;
pub mod copy;
pub mod copy_in;
mod copy_lines;
pub mod copy_out;
mod copy_rows;
pub mod define;
mod describe;
pub mod driver;
mod each;
pub mod elements;
pub mod facts;
mod hold;
pub mod internal;
mod leftover;
mod literals;
pub mod machine;
pub mod messages;
pub mod named;
pub mod names;
pub mod notices;
pub mod open;
pub mod queue;
pub mod redact;
mod renewed;
pub mod schema;
pub mod seal;
pub mod server_side;
pub mod show;
pub mod shown;
mod switched;
pub(crate) mod whose;
pub mod work;
