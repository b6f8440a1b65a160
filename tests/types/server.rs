//! What Postgres makes of values.
use rowseal::types::{Element, LogicalType, TextStyle};
use tokio_postgres::{Client, Statement};

use super::generate::Subject;
use crate::support::postgres::Cluster;
use crate::support::raw::{Binary, Raw};

/// The server, with a function for each type that reads a text as an assignment would.
pub struct Server {
    client: Client,
}

/// What a text gave.
pub struct Answer {
    pub binary: Option<Vec<u8>>,
    pub text: Option<String>,
    pub state: Option<String>,
}

pub fn array_of(ty: LogicalType) -> LogicalType {
    LogicalType::Array(Element::of(ty).unwrap())
}

/// In lower case by the rules of Unicode.
fn lower(expression: &str) -> String {
    format!("lower({expression} COLLATE \"C.utf8\")")
}

/// The type's name there; citext is compared in lower case and else is text.
fn name_there(subject: &Subject) -> String {
    subject.name.replace("citext", "text")
}

fn function(subject: &Subject) -> String {
    format!("pg_temp.\"read {}\"", subject.name)
}

impl Server {
    pub async fn connect(cluster: &Cluster) -> Server {
        Server { client: cluster.connect("postgres").await }
    }

    pub async fn set(&self, style: &TextStyle) {
        let bytea = if style.bytea_hex { "hex" } else { "escape" };
        self.client
            .batch_execute(&format!(
                "SET DateStyle = '{}'; SET TimeZone = '{}'; SET IntervalStyle = '{}'; SET bytea_output = '{bytea}';
                 SET extra_float_digits = {}",
                style.date_style, style.time_zone, style.interval_style, style.extra_float_digits
            ))
            .await
            .unwrap();
    }

    async fn create(&self, subject: &Subject) {
        let (function, ty) = (function(subject), name_there(subject));
        self.client
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION {function}(v text, OUT value {ty}, OUT state text) LANGUAGE plpgsql
                 AS $$DECLARE x {ty}; BEGIN x := v; value := x; EXCEPTION WHEN OTHERS THEN state := SQLSTATE; END$$"
            ))
            .await
            .unwrap();
    }

    pub async fn read(&self, subject: &Subject, texts: &[String]) -> Vec<Answer> {
        self.create(subject).await;
        let sql = format!(
            "SELECT r.value, CASE WHEN r.state IS NULL THEN format('%s', r.value) END, r.state
             FROM unnest($1::text[]) WITH ORDINALITY AS u(v, n), LATERAL {}(v) r ORDER BY n",
            function(subject)
        );
        let rows = self.client.query(&sql, &[&texts]).await.unwrap();
        assert_eq!(rows.len(), texts.len());
        let answer = |row: &tokio_postgres::Row| Answer {
            binary: row.get::<_, Option<Raw>>(0).map(|raw| raw.0),
            text: row.get(1),
            state: row.get(2),
        };
        rows.iter().map(answer).collect()
    }

    /// All pairs, row by row.
    pub async fn equal_pairs(&self, subject: &Subject, texts: &[String]) -> Vec<bool> {
        self.create(subject).await;
        let function = function(subject);
        let equal = match subject.ty() {
            LogicalType::Citext => format!("{} = {}", lower("a.value"), lower("b.value")),
            LogicalType::Array(_) if subject.name.starts_with("citext") => {
                format!("{} = {}", lower("a.value::text"), lower("b.value::text"))
            }
            _ => "a.value = b.value".to_owned(),
        };
        let sql = format!(
            "WITH read AS MATERIALIZED (SELECT n, r.value FROM unnest($1::text[]) WITH ORDINALITY AS u(v, n), {function}(v) r)
             SELECT {equal} FROM read a, read b ORDER BY a.n, b.n"
        );
        self.client.query(&sql, &[&texts]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    pub async fn prepare(&self, subject: &Subject) -> Statement {
        self.client.prepare(&format!("SELECT $1::{}", name_there(subject))).await.unwrap()
    }

    /// The bytes that the server gives back for bytes, or its SQLSTATE.
    pub async fn echo(&self, statement: &Statement, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self.client.query_one(statement, &[&Binary(Some(bytes.to_vec()))]).await {
            Ok(row) => Ok(row.get::<_, Raw>(0).0),
            Err(error) => Err(error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()),
        }
    }
}
