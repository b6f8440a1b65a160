//! The programs, and how each is run.
use crate::Outcome;
use crate::compare::Known;
use crate::run::twice;
use crate::{dump, sqlsmith};

/// A program of the list.
pub struct Program {
    /// As it is called in known.toml and in `make suites SUITES=...`.
    pub name: &'static str,
    /// Its policy, below tests/suites.
    pub policy: &'static str,
    /// Its command; `{tools}` is .tools/suites, `{here}` is tests/suites.
    pub command: &'static [&'static str],
    /// Runs it on both sides.
    pub run: fn(&Program, &Known) -> Outcome,
}

const PYTHON: &str = "{tools}/venv/bin/python";

/// All of them, in the order of the table.
pub const PROGRAMS: &[Program] = &[
    Program { name: "django", policy: "django/policy.toml", command: &[PYTHON, "{here}/django/run.py"], run: twice },
    Program {
        name: "django-server-binding",
        policy: "django/policy.toml",
        command: &["env", "SERVER_SIDE_BINDING=1", PYTHON, "{here}/django/run.py"],
        run: twice,
    },
    Program {
        name: "sqlalchemy-psycopg",
        policy: "shop.toml",
        command: &[PYTHON, "{here}/sqlalchemy/run.py", "psycopg"],
        run: twice,
    },
    Program {
        name: "sqlalchemy-asyncpg",
        policy: "shop.toml",
        command: &[PYTHON, "{here}/sqlalchemy/run.py", "asyncpg"],
        run: twice,
    },
    Program { name: "drizzle-pg", policy: "shop.toml", command: &["node", "{here}/node/drizzle.js", "pg"], run: twice },
    Program {
        name: "drizzle-postgres.js",
        policy: "shop.toml",
        command: &["node", "{here}/node/drizzle.js", "postgres"],
        run: twice,
    },
    Program { name: "prisma", policy: "shop.toml", command: &["node", "{here}/node/prisma.js"], run: twice },
    Program { name: "typeorm", policy: "shop.toml", command: &["node", "{here}/node/typeorm.js"], run: twice },
    Program { name: "knex", policy: "shop.toml", command: &["node", "{here}/node/knex.js"], run: twice },
    Program { name: "sqlx", policy: "shop.toml", command: &["{tools}/sqlx/debug/suite-sqlx"], run: twice },
    Program {
        name: "jdbc",
        policy: "shop.toml",
        command: &["java", "-cp", "/usr/share/java/postgresql.jar", "{here}/jdbc/Suite.java", "{here}/schema.sql"],
        run: twice,
    },
    Program { name: "activerecord", policy: "shop.toml", command: &["ruby", "{here}/ruby/run.rb"], run: twice },
    Program {
        name: "activerecord-simple",
        policy: "shop.toml",
        command: &["env", "PREPARED=no", "ruby", "{here}/ruby/run.rb"],
        run: twice,
    },
    Program { name: "psql", policy: "shop.toml", command: &["bash", "{here}/psql/run.sh"], run: twice },
    Program { name: "pgbench", policy: "shop.toml", command: &["bash", "{here}/pgbench/run.sh"], run: twice },
    Program { name: "pg_dump", policy: "shop.toml", command: &[], run: dump::run },
    Program { name: "sqlsmith", policy: "shop.toml", command: &["sqlsmith"], run: sqlsmith::run },
];
