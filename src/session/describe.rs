//! What the client is told of the rows and parameters of its statements.
use std::sync::Arc;

use crate::policy::Read;
use crate::sql::plan::{ParamRole, ResultColumn};
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::cells::{BYTEA, is_cell_parameter};
use super::machine::{Fatal, Machine, Mute, Prepared};
use super::open::Shape;
use super::queue::Expect;
use super::server_side::changed;
use super::shown::Stands;

impl Machine {
    /// RowDescription: sealed columns get the client's types. That of a simple query that runs as extended messages waits:
    /// the server tells of rows only once it has changed them all.
    pub(super) fn describe_rows(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        let waits = matches!(self.queue.front(), Some(Expect::QueryPortal(_)));
        let told = self.to_client.len();
        self.describe_rows_now(frame)?;
        if waits && self.mute == Mute::Off {
            self.described = self.to_client.split_off(told);
        }
        Ok(())
    }

    fn describe_rows_now(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        let shape = match self.queue.front() {
            Some(Expect::Statement(Some(prepared))) => self.statement_shape(prepared),
            Some(Expect::Portal(Some(reply)) | Expect::QueryPortal(Some(reply))) => self.shape_of(reply),
            Some(Expect::Portal(None) | Expect::QueryPortal(None) | Expect::Statement(None)) => None,
            _ => self.current_shape(),
        };
        let Some(shape) = shape else {
            self.to_client.extend_from_slice(frame);
            self.advance(b'T');
            return Ok(());
        };
        let mut fields = backend::row_description(&frame[HEADER..])?;
        if fields.len() != shape.columns.len() + shape.hidden {
            self.reload = true;
            self.break_off(&changed());
            return Ok(());
        }
        fields.truncate(shape.columns.len());
        let sealed_reader = shape.facts.read == Read::Sealed;
        for (at, column) in shape.columns.iter().enumerate() {
            let field = &mut fields[at];
            let (described, table_oid, attnum) = match column {
                ResultColumn::Plain => continue,
                ResultColumn::Sealed { described, table_oid, attnum, .. } => (described, table_oid, attnum),
                ResultColumn::Built(built) => {
                    field.format = shape.format(at);
                    if let (false, Some((oid, typmod))) = (sealed_reader, super::built::array_type(built)) {
                        (field.type_oid, field.typlen, field.typmod) = (oid, -1, typmod);
                    }
                    continue;
                }
            };
            if field.type_oid != 17 {
                self.reload = true;
                self.break_off(&changed());
                return Ok(());
            }
            (field.table_oid, field.attnum, field.format) = (*table_oid, *attnum, shape.format(at));
            if !sealed_reader {
                (field.type_oid, field.typlen, field.typmod) =
                    (described.oid(), described.typlen(), described.typmod());
            }
        }
        backend::put_row_description(&mut self.to_client, &fields);
        self.advance(b'T');
        Ok(())
    }

    fn statement_shape(&self, prepared: &Prepared) -> Option<Arc<Shape>> {
        let reply = Machine::reply(&prepared.plan[0], Some(Vec::new()), (&prepared.facts, Stands::default()))?;
        self.shape_of(&reply)
    }

    /// ParameterDescription: sealed parameters have the client's types.
    pub(super) fn describe_parameters(&mut self, frame: &[u8]) -> Result<(), Fatal> {
        let Some(Expect::Statement(Some(prepared))) = self.queue.front() else {
            self.to_client.extend_from_slice(frame);
            return Ok(());
        };
        let server = backend::parameter_description(&frame[HEADER..])?;
        let params = &prepared.plan[0].params;
        let oids: Vec<u32> = params
            .iter()
            .enumerate()
            .map(|(n, role)| match role {
                _ if is_cell_parameter(&prepared.plan[0], n, &prepared.facts) => BYTEA,
                ParamRole::Sealed(_, described) => {
                    super::seal::declared(&prepared.oids, n).unwrap_or_else(|| described.oid())
                }
                ParamRole::SealedMany(_, described) => {
                    super::seal::declared(&prepared.oids, n).unwrap_or_else(|| described.array_oid())
                }
                ParamRole::Plain | ParamRole::Both(_) | ParamRole::Unused => server.get(n).copied().unwrap_or(0),
            })
            .collect();
        backend::put_parameter_description(&mut self.to_client, &oids);
        Ok(())
    }
}
