//! The client's direction: which of its messages pass, wait, are rewritten or refused.
use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::refusal::{Class, Refusal};
use crate::sql::filter::ends_transaction;
use crate::sql::plan::{Named, Source, StatementPlan, Verdict};
use crate::sql::{self, Protocol};
use crate::wire::frame::{self, HEADER, Header};
use crate::wire::frontend;

use super::copied;
use super::copy::takes_rows;
use super::define::certain;
use super::facts::Facts;
use super::leftover;
use super::literals;
use super::machine::{Changes, Fatal, Held, Hold, Machine, OUT_BYTES_MAX, Prepared, Unsynced};
use super::messages::{
    BIND_NAMES, allowed, bind_fits, defines_sealed, executes_sealed, inline, malformed, names_awaited, names_prepared,
    result_formats, server_oids, server_params, settled, too_large,
};
use super::named::{Reply, mentions_execute};
use super::queue::{Expect, Rewritten};
use super::seal::{self, Inputs};
use super::shown::Stands;

/// What a plan's values are for the server; `None` is NULL.
type Values = Vec<Option<Vec<u8>>>;

impl Machine {
    /// Takes what the client sent: as many whole messages as can go on now are consumed from `input`.
    ///
    /// # Errors
    /// [`Fatal`] when the client breaks the protocol; the session ends then.
    pub fn on_client(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        self.undecided = false;
        while !input.is_empty() && self.hold.is_none() && self.to_server.len() < OUT_BYTES_MAX {
            if self.tunnel {
                self.to_server.extend_from_slice(input);
                input.clear();
                return Ok(());
            }
            if self.client_skip > 0 || self.client_pass > 0 {
                self.stream_client(input);
                continue;
            }
            if self.copy.left > 0 {
                self.copy_bytes(input);
                continue;
            }
            let Some(header) = frame::header(input)? else { break };
            if !self.client_frame(header, input)? {
                break;
            }
            self.unsynced = self.unsynced.max(match header.tag {
                b'B' => Unsynced::Bound,
                b'E' => Unsynced::Executed,
                _ => Unsynced::Nothing,
            });
        }
        Ok(())
    }

    /// Passes or drops the rest of a message that is not held whole.
    fn stream_client(&mut self, input: &mut BytesMut) {
        if self.client_skip > 0 {
            let n = self.client_skip.min(input.len());
            input.advance(n);
            self.client_skip -= n;
            return;
        }
        let n = self.client_pass.min(input.len());
        self.to_server.extend_from_slice(&input[..n]);
        input.advance(n);
        self.client_pass -= n;
    }

    /// One message; false when more bytes are needed.
    fn client_frame(&mut self, header: Header, input: &mut BytesMut) -> Result<bool, Fatal> {
        if self.skipping && !matches!(header.tag, b'S' | b'X') {
            if header.tag == b'P' && header.total <= self.message_bytes_max {
                if input.len() < header.total {
                    return Ok(false);
                }
                self.forget(header.tag, &input[HEADER..header.total]);
            }
            self.client_skip = header.total;
            return Ok(true);
        }
        match header.tag {
            b'd' | b'c' | b'f' => return self.copy_message(header, input),
            b'B' if names_awaited(header, input) => return Ok(false),
            b'B' | b'D' if self.is_undecided(header, input) => {
                self.undecided = true;
                return Ok(false);
            }
            // DDL under way: the schema is read again once the server has answered.
            b'Q' | b'P' | b'B' if self.reload && !self.copy_in && self.queue.ends_ready() => {
                self.undecided = true;
                return Ok(false);
            }
            b'B' if !self.bind_is_sealed(header, input)? => return self.plain_bind(header, input),
            b'Q' | b'P' | b'B' if header.total > self.message_bytes_max => {
                self.client_skip = header.total;
                if let (b'P', Some(end)) = (header.tag, memchr::memchr(0, &input[HEADER..])) {
                    self.gone.add(Bytes::copy_from_slice(frontend::name(&input[HEADER..HEADER + end])));
                }
                let refusal = too_large(self.message_bytes_max);
                self.refuse(header.tag, &refusal)?;
                return Ok(true);
            }
            _ => {}
        }
        if input.len() < header.total {
            if header.total > self.message_bytes_max {
                self.client_pass = header.total;
                return Ok(true);
            }
            input.reserve(header.total - input.len());
            return Ok(false);
        }
        self.whole_message(header, input)?;
        Ok(true)
    }

    fn whole_message(&mut self, header: Header, input: &mut BytesMut) -> Result<(), Fatal> {
        match header.tag {
            b'Q' | b'P' => self.text_message(header, input),
            b'B' => {
                let body = input.split_to(header.total).freeze().slice(HEADER..);
                self.look_at_bind(Held { tag: b'B', body, ..Held::default() })
            }
            b'D' | b'C' => self.describe_or_close(header, input),
            b'E' => self.execute(header, input),
            b'S' => {
                self.skipping = false;
                self.unsynced = Unsynced::Nothing;
                // A setting local to an implicit transaction ends here.
                if std::mem::take(&mut self.facts_local) {
                    self.facts = None;
                }
                if !self.copy_in {
                    self.queue.push(Expect::Sync);
                }
                self.forward(header, input);
                Ok(())
            }
            b'F' => {
                self.facts = None;
                self.queue.push(Expect::Function);
                self.forward(header, input);
                Ok(())
            }
            b'X' => {
                self.terminated = true;
                self.forward(header, input);
                Ok(())
            }
            _ => {
                self.forward(header, input);
                Ok(())
            }
        }
    }

    fn forward(&mut self, header: Header, input: &mut BytesMut) {
        self.to_server.extend_from_slice(&input[..header.total]);
        input.advance(header.total);
    }

    /// A Query or Parse: the lexical filter decides whether it is looked at more closely.
    fn text_message(&mut self, header: Header, input: &mut BytesMut) -> Result<(), Fatal> {
        self.statement += 1;
        let body = &input[HEADER..header.total];
        let (name, text) = match header.tag {
            b'Q' => (&b""[..], frontend::query(body)?),
            _ => {
                let parse = frontend::parse(body)?;
                self.watch(parse.name, parse.text, &parse.oids);
                (parse.name, parse.text)
            }
        };
        let is_query = header.tag == b'Q';
        if is_query && self.after_copy && leftover::is_no_statement(text) {
            input.advance(header.total);
            return self.refuse(b'Q', &leftover::refused());
        }
        let copies = is_query && leftover::copies(text);
        let hits = self.scan(text);
        let reload = self.schema_is_stale(text, hits);
        let executes = hits.sql_prepare || (hits.facts && mentions_execute(text));
        let named = hits.touches || self.may_name(text, hits.sql_prepare) || defines_sealed(text, hits);
        let looked_at = named || executes || reload;
        self.after_copy = if is_query { looked_at && copies } else { self.after_copy };
        if looked_at && !ends_transaction(text) {
            self.begins(true);
            let held = Held {
                tag: header.tag,
                body: input.split_to(header.total).freeze().slice(HEADER..),
                ..Held::default()
            };
            if reload {
                return self.wait_for_schema(held);
            }
            if hits.facts {
                self.facts = None;
            }
            return self.resume(held);
        }
        if header.tag == b'Q' {
            if hits.facts {
                self.facts = None;
            }
            self.plain_query();
        } else {
            let name = Bytes::copy_from_slice(name);
            self.plain_parse(name, Changes::of(hits));
        }
        self.forward(header, input);
        Ok(())
    }

    /// The unnamed statement's entry stays: the server may skip this message, and a Bind of a statement that is gone
    /// fails there anyway.
    fn plain_query(&mut self) {
        self.begins(false);
        self.queue.push(Expect::Query(None, 0));
    }

    fn plain_parse(&mut self, name: Bytes, changes: Option<Changes>) {
        if let Some(changes) = changes {
            self.fact_statements.insert(name.clone(), changes);
        } else if !self.fact_statements.is_empty() && name.is_empty() && self.queue.is_empty() {
            self.fact_statements.remove(&name);
        }
        if !self.passed.is_empty() {
            self.passed.remove(&name);
        }
        if !self.gone.is_empty() {
            self.gone.remove(&name);
        }
        let before = if self.statements.is_empty() { None } else { self.statements.remove(&name) };
        if let Some(parsed) = &mut self.parsed {
            parsed.insert(name.clone(), self.queue.syncs());
        }
        self.queue.push(Expect::Parse { name, before, positions: None });
    }

    /// Carries a message on that was held, or that needs a closer look.
    pub(super) fn resume(&mut self, mut held: Held) -> Result<(), Fatal> {
        if self.waits_for_switch(&held) {
            return self.wait_for_schema(Held { waited: held.waited + 1, ..held });
        }
        // Those that have just been told hold, though the roles be those of a transaction that nobody else sees.
        let facts = if held.told { self.facts.clone() } else { self.known_facts() };
        let Some(facts) = facts else { return self.ask_facts(held) };
        let tag = held.tag;
        if let Err(refusal) = held.under(&facts.policy) {
            self.forget(tag, &held.body);
            return self.refuse(tag, &refusal);
        }
        let reloaded = held.reloaded;
        let again = Held { tag, body: held.body.clone(), reloaded: true, ..Held::default() };
        let missing = tag != b'B' && self.names_missing(&held.body);
        if missing && !held.reloaded {
            return self.wait_for_schema(again);
        }
        if tag != b'B' && names_prepared(&held.body, self.gone.names()) {
            self.forget(tag, &held.body);
            return self.refuse(tag, &executes_sealed());
        }
        let body = held.body.clone();
        let result = match tag {
            b'Q' => self.query(held, &facts),
            b'P' => self.parse(&held, &facts),
            _ => self.bind(held, &facts),
        };
        match result {
            Ok(()) => {
                // Until it succeeds. The table may be the transaction's own; then EXECUTE is refused all the same.
                if missing && tag == b'Q' {
                    self.forget(tag, &body);
                }
                Ok(())
            }
            Err(refusal) if refusal.class == Class::UnknownColumn && tag != b'B' && !reloaded => {
                self.wait_for_schema(again)
            }
            Err(refusal) => {
                self.forget(tag, &body);
                self.refuse(tag, &refusal)
            }
        }
    }

    /// A Query that the filter hit.
    fn query(&mut self, mut held: Held, facts: &Arc<Facts>) -> Result<(), Refusal> {
        let body = held.body.clone();
        let text = &body[..body.len() - 1];
        let (verdict, hits) = self.verdict(text, facts, (Protocol::Simple, &[], &held))?;
        let plans = match verdict {
            Verdict::Refuse(refusal) => return Err(refusal),
            Verdict::Ask(asked) => {
                self.ask_first(held, &asked);
                return Ok(());
            }
            Verdict::Pass => {
                self.plain_query();
                frontend::put_query(&mut self.to_server, text);
                if hits.facts {
                    self.facts = None;
                }
                return Ok(());
            }
            Verdict::Rewrite(plans) => self.resolve_names(plans, facts)?,
        };
        certain(&plans, held.reloaded)?;
        if plans.len() > 1 && plans.iter().any(|plan| plan.lock.is_some()) {
            return Err(Refusal::new(
                Class::NotSupported,
                "a statement that runs in two steps cannot share a query with other statements",
            )
            .hint("Send the statements one by one; in an UPDATE, pin the row's primary key and tenant."));
        }
        let locked = held.locked.take();
        if plans.len() > 1 {
            settled(text, &plans)?;
        }
        plans.iter().try_for_each(|plan| literals::check_shown(plan, facts))?;
        if let Some(plan) = plans.iter().find(|plan| plan.lock.is_some())
            && !self.open_copied(plan, &mut held, facts)?
        {
            self.hold = Some(Hold::Keys(held));
            return Ok(());
        }
        let copied = held.copied.take();
        let rows = copied::opened(&copied);
        let inputs = Inputs { params: &[], formats: &[], oids: &[], facts, locked: locked.as_deref(), copied: rows };
        let mut uses = Vec::new();
        let mut values = Vec::new();
        let Some(mut granted) = self.granted(&plans, &inputs, &mut held)? else {
            (held.locked, held.copied) = (locked, copied);
            self.hold = Some(Hold::Keys(held));
            return Ok(());
        };
        if let Some(lock) = plans.iter().find(|plan| plan.lock.is_some())
            && locked.is_none()
            && copied.is_none()
        {
            if !lock.params.is_empty() {
                return Err(Refusal::new(Class::NoParameter, "there is no parameter $1"));
            }
            return self.ask_lock(held, lock, &inputs, granted, &[]);
        }
        for plan in plans.iter() {
            values.push(seal::compute(plan, &inputs, &mut granted, &mut uses)?);
        }
        let text = String::from_utf8_lossy(text);
        let rows = plans.iter().map(|plan| plan.sealed_rows as u64).sum();
        self.audit(uses, rows, granted.kms_requests)?;
        if hits.facts {
            self.facts = None;
        }
        if (locked.is_some() || copied.is_some())
            && let ([plan], Some(values)) = (&plans[..], values.pop())
        {
            self.query_second_step(&text, plan, &inputs, (values, Stands::of(plan, &inputs)?));
            return Ok(());
        }
        let given = plans.iter().map(|plan| Stands::of(plan, &inputs)).collect::<Result<_, _>>()?;
        self.send_query(&text, &plans, (&values, given), facts);
        Ok(())
    }

    /// Sends a query with its cells and tokens inline.
    fn send_query(
        &mut self,
        text: &str,
        plans: &[StatementPlan],
        (values, given): (&[Values], Vec<Stands>),
        facts: &Arc<Facts>,
    ) {
        let mut slot = |plan: usize, slot: usize, out: &mut String| {
            let value = &plans[plan].values[slot];
            match value.source {
                // A simple query has no parameters: the server says so.
                Source::Param(n) => out.push_str(&format!("${}", n + 1)),
                _ => out.push_str(&inline(&value.role, values[plan][slot].as_deref())),
            }
            Ok::<(), Infallible>(())
        };
        let Ok(rewritten) = sql::render::render(text, plans, &mut slot);
        let replies = plans.iter().zip(given).flat_map(|(plan, given)| {
            let following = plan.ddl.as_ref().map_or(0, |ddl| ddl.then.len());
            let following = std::iter::repeat_n(Some(Reply::Follows), following);
            std::iter::once(Machine::reply(plan, None, (facts, given))).chain(following)
        });
        let replies = replies.collect();
        for plan in plans {
            if let Some(Named::Prepare { name, plan: Some(prepared) }) = &plan.named {
                self.doubt(name.as_bytes(), prepared);
            }
        }
        let positions = rewritten.positions(text);
        self.begins(plans.iter().any(takes_rows));
        self.queue.push(Expect::Query(Some(Rewritten { replies, positions }), 0));
        frontend::put_query(&mut self.to_server, rewritten.text.as_bytes());
    }

    /// A Parse that the filter hit.
    fn parse(&mut self, held: &Held, facts: &Arc<Facts>) -> Result<(), Refusal> {
        let parse = frontend::parse(&held.body).map_err(|_| malformed())?;
        // It may have waited for a newer one than when it came.
        self.watched.planned(parse.name, Some(self.with_schema(|schema| schema.catalog.version)));
        let (verdict, hits) = self.verdict(parse.text, facts, (Protocol::Extended, &parse.oids, held))?;
        let name = Bytes::copy_from_slice(parse.name);
        let plan = match verdict {
            Verdict::Refuse(refusal) => return Err(refusal),
            Verdict::Ask(asked) => {
                let held = Held { tag: held.tag, body: held.body.clone(), reloaded: held.reloaded, ..Held::default() };
                self.ask_first(held, &asked);
                return Ok(());
            }
            Verdict::Pass => {
                self.plain_parse(name.clone(), Changes::of(hits));
                if hits.touches {
                    self.passed.insert(name, (Bytes::copy_from_slice(parse.text), facts.clone()));
                }
                frontend::put_parse(&mut self.to_server, parse.name, parse.text, &parse.oids);
                return Ok(());
            }
            Verdict::Rewrite(plan) => plan,
        };
        let [statement] = &plan[..] else {
            return Err(Refusal::new(Class::NotSupported, "cannot insert multiple commands into a prepared statement"));
        };
        certain(&plan, held.reloaded)?;
        self.preparable(statement, &parse.oids, facts)?;
        let text = String::from_utf8_lossy(parse.text);
        let rewritten = sql::render::render_extended(&text, statement);
        let positions = Arc::new(rewritten.positions(&text));
        frontend::put_parse(
            &mut self.to_server,
            parse.name,
            rewritten.text.as_bytes(),
            &server_oids(statement, &parse.oids),
        );
        if let Some(changes) = Changes::of(hits) {
            self.fact_statements.insert(name.clone(), changes);
        }
        let prepared = Prepared {
            plan: plan.clone(),
            oids: parse.oids,
            facts: facts.clone(),
            positions: positions.clone(),
            text: Some(held.body.slice_ref(parse.text)),
        };
        self.passed.remove(&name);
        self.gone.remove(&name);
        let before = self.statements.insert(name.clone(), Arc::new(prepared));
        self.parsed.get_or_insert_default().insert(name.clone(), self.queue.syncs());
        self.queue.push(Expect::Parse { name, before, positions: Some(positions) });
        Ok(())
    }

    fn plain_bind(&mut self, header: Header, input: &BytesMut) -> Result<bool, Fatal> {
        let have = input.len().min(header.total);
        let (portal, statement) = match frontend::bind_names(&input[HEADER..have]) {
            Ok(names) => names,
            Err(_) if have < header.total.min(BIND_NAMES) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !self.portals.is_empty() {
            self.portals.remove(portal);
        }
        if !self.fact_portals.is_empty() {
            self.fact_portals.remove(portal);
        }
        if let Some(changes) = self.fact_statements.get(statement) {
            self.fact_portals.insert(Bytes::copy_from_slice(portal), *changes);
        }
        self.queue.push(Expect::Bind(None));
        self.client_pass = header.total;
        Ok(true)
    }

    /// A Bind of a statement that touches a sealed column.
    fn bind(&mut self, mut held: Held, facts: &Arc<Facts>) -> Result<(), Refusal> {
        let body = held.body.clone();
        let bind = frontend::bind(&body).map_err(|_| malformed())?;
        if self.gone.contains(bind.statement) {
            // The server says that there is no such statement. It is not told the values, nor may it take another
            // statement of that name for the one that is meant.
            let nobody = [bind.statement, b" (not prepared)"].concat();
            self.queue.push(Expect::Bind(None));
            frontend::put_bind(&mut self.to_server, bind.portal, &nobody, &[], &[]);
            return Ok(());
        }
        self.look_again(bind.statement, facts)?;
        let Some(prepared) = self.statements.get(bind.statement).cloned() else {
            return self.bind_passed(&body, (bind.portal, bind.statement), facts);
        };
        prepared.same_schemas(facts)?;
        let plan = &prepared.plan[0];
        allowed(&prepared.plan, facts)?;
        bind_fits(&bind, plan)?;
        let locked = held.locked.take();
        let (formats, oids) = (&bind.formats, &prepared.oids);
        if !self.open_copied(plan, &mut held, facts)? {
            self.hold = Some(Hold::Keys(held));
            return Ok(());
        }
        let copied = held.copied.take();
        let rows = copied::opened(&copied);
        let inputs = Inputs { params: &bind.values, formats, oids, facts, locked: locked.as_deref(), copied: rows };
        let Some(mut granted) = self.granted(&prepared.plan, &inputs, &mut held)? else {
            (held.locked, held.copied) = (locked, copied);
            self.hold = Some(Hold::Keys(held));
            return Ok(());
        };
        if plan.lock.is_some() && locked.is_none() && copied.is_none() {
            return self.ask_lock(held, plan, &inputs, granted, &prepared.oids);
        }
        let mut uses = Vec::new();
        let values = seal::compute(plan, &inputs, &mut granted, &mut uses)?;
        self.audit(uses, plan.sealed_rows as u64, granted.kms_requests)?;
        let params = server_params(plan, &inputs, values);
        let formats = self.fetch_formats(plan, &bind.result_formats);
        let formats = formats.unwrap_or_else(|| result_formats(plan, &bind.result_formats));
        frontend::put_bind(&mut self.to_server, bind.portal, bind.statement, &params, &formats);
        let portal = Bytes::copy_from_slice(bind.portal);
        if let Some(changes) = self.fact_statements.get(bind.statement) {
            self.fact_portals.insert(portal.clone(), *changes);
        }
        let given = Stands::of(plan, &inputs)?;
        match Machine::reply(plan, Some(bind.result_formats), (facts, given)) {
            Some(reply) => self.portals.insert(portal, reply.placed(&prepared.positions)),
            None => self.portals.remove(&portal),
        };
        self.queue.push(Expect::Bind(Some(prepared.positions.clone())));
        Ok(())
    }

    fn describe_or_close(&mut self, header: Header, input: &mut BytesMut) -> Result<(), Fatal> {
        let (kind, name) = frontend::target(&input[HEADER..header.total])?;
        let expect = match (header.tag, kind) {
            (b'D', b'S') => Expect::Statement(self.statements.get(name).cloned()),
            (b'D', _) => Expect::Portal(self.portal(name)),
            (_, b'S') => Expect::Close(Some((Bytes::copy_from_slice(name), self.statements.get(name).cloned()))),
            (_, _) => Expect::Close(None),
        };
        self.queue.push(expect);
        self.forward(header, input);
        Ok(())
    }

    fn execute(&mut self, header: Header, input: &mut BytesMut) -> Result<(), Fatal> {
        let portal = frontend::execute(&input[HEADER..header.total])?;
        if let Some(changes) = self.fact_portals.get(portal).copied() {
            self.facts = None;
            self.facts_local = true;
            if changes == Changes::Schema {
                self.expect_change();
            }
        }
        let reply = self.portal(portal);
        self.begins(reply.as_ref().is_some_and(Reply::takes_rows));
        let ddl = if let Some(Reply::Defines(ddl)) = &reply { Some(ddl.clone()) } else { None };
        self.queue.push(Expect::Execute(reply));
        self.forward(header, input);
        if let Some(ddl) = ddl {
            self.follow(&ddl);
        }
        Ok(())
    }
}
