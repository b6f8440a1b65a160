// The JDBC driver: its prepared statements, batches, cursors, COPY, types and metadata. Prints a line `== step` and the answer.
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.postgresql.PGConnection;

public class Suite {
    interface Act { String run() throws Exception; }

    static void step(String name, Act act) {
        System.out.println("== " + name);
        try {
            System.out.println(act.run());
        } catch (SQLException error) {
            System.out.println("error " + error.getSQLState() + " " + String.valueOf(error.getMessage()).split("\n")[0]);
        } catch (Exception error) {
            System.out.println("broken " + error);
        }
    }

    static String rows(ResultSet found) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = found.getMetaData().getColumnCount();
        while (found.next()) {
            for (int n = 1; n <= columns; n++) text.append(n == 1 ? "" : " | ").append(found.getObject(n));
            text.append('\n');
        }
        return text.toString();
    }

    static Connection db;

    static String ask(String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int n = 0; n < values.length; n++) statement.setObject(n + 1, values[n]);
            return statement.execute() ? rows(statement.getResultSet()) : String.valueOf(statement.getUpdateCount());
        }
    }

    static Connection connect(String... options) throws SQLException {
        Properties given = new Properties();
        given.setProperty("user", System.getenv("PGUSER"));
        for (int n = 0; n < options.length; n += 2) given.setProperty(options[n], options[n + 1]);
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        return DriverManager.getConnection(url, given);
    }

    static final String INSERT = "INSERT INTO customer (account_id, name, rank, email, phone, ssn, birth, balance, visits, joined, extra) "
        + "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?::jsonb)";

    static void fill(PreparedStatement statement, int n, int account) throws SQLException {
        statement.setInt(1, account);
        statement.setString(2, "name" + n);
        statement.setInt(3, n);
        statement.setString(4, "canary7f3-" + n + "@example.com");
        statement.setString(5, n % 5 == 0 ? null : "canary7f3-phone-" + n);
        statement.setString(6, "canary7f3-ssn-" + n);
        statement.setObject(7, LocalDate.of(1990, 1, 1 + n % 28));
        statement.setBigDecimal(8, new BigDecimal(n).movePointLeft(2));
        statement.setInt(9, 7300 + n);
        statement.setObject(10, OffsetDateTime.of(2024, 2, 29, 12, n % 60, 0, 0, ZoneOffset.UTC));
        statement.setString(11, "{\"canary7f3\": " + n + "}");
    }

    static String batch(int from, int to) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(INSERT)) {
            for (int n = from; n < to; n++) {
                fill(statement, n, 1 + n % 3);
                statement.addBatch();
            }
            int sum = 0;
            for (int count : statement.executeBatch()) sum += count > 0 ? count : 1;
            return String.valueOf(sum);
        }
    }

    static void all(String kind, int base, String... options) throws Exception {
        db = connect(options);
        step(kind + ": insert", () -> {
            try (PreparedStatement statement = db.prepareStatement(INSERT)) {
                fill(statement, base + 1, 2);
                return String.valueOf(statement.executeUpdate());
            }
        });
        step(kind + ": batch", () -> batch(base + 2, base + 20));
        step(kind + ": generated keys", () -> {
            try (PreparedStatement statement = db.prepareStatement(INSERT, new String[] {"id", "email"})) {
                fill(statement, base + 20, 3);
                statement.executeUpdate();
                return rows(statement.getGeneratedKeys());
            }
        });
        step(kind + ": unique violation", () -> batch(base + 2, base + 3));
        // Often enough to be prepared on the server, with binary results.
        step(kind + ": found again and again", () -> {
            StringBuilder text = new StringBuilder();
            try (PreparedStatement statement = db.prepareStatement("SELECT id, email, birth, balance, visits, joined, extra FROM customer WHERE account_id = ? AND email = ?")) {
                for (int n = 2; n < 14; n++) {
                    statement.setInt(1, 1 + (base + n) % 3);
                    statement.setString(2, "canary7f3-" + (base + n) + "@example.com");
                    text.append(rows(statement.executeQuery()));
                }
            }
            return text.toString();
        });
        step(kind + ": typed", () -> {
            try (PreparedStatement statement = db.prepareStatement("SELECT birth, balance, visits, joined, email FROM customer WHERE id = 2")) {
                ResultSet found = statement.executeQuery();
                found.next();
                return found.getObject(1, LocalDate.class) + " " + found.getBigDecimal(2) + " " + found.getInt(3) + " "
                    + found.getObject(4, OffsetDateTime.class) + " " + found.getString(5);
            }
        });
        step(kind + ": result metadata", () -> {
            try (PreparedStatement statement = db.prepareStatement("SELECT id, email, phone, birth, balance, joined, extra FROM customer")) {
                ResultSetMetaData told = statement.getMetaData();
                StringBuilder text = new StringBuilder();
                for (int n = 1; n <= told.getColumnCount(); n++)
                    text.append(told.getColumnName(n)).append(' ').append(told.getColumnTypeName(n)).append(' ').append(told.getPrecision(n)).append('\n');
                ParameterMetaData wanted = db.prepareStatement("SELECT id FROM customer WHERE account_id = ? AND email = ? AND visits = ?").getParameterMetaData();
                for (int n = 1; n <= wanted.getParameterCount(); n++) text.append(wanted.getParameterTypeName(n)).append('\n');
                return text.toString();
            }
        });
        step(kind + ": in and any", () -> ask("SELECT name FROM customer WHERE account_id = ? AND email IN (?, ?) ORDER BY id", 1, "canary7f3-3@example.com", "canary7f3-6@example.com")
            + ask("SELECT name FROM customer WHERE phone = ANY (?) ORDER BY id", db.createArrayOf("varchar", new String[] {"canary7f3-phone-3", "canary7f3-phone-4"})));
        step(kind + ": a cursor of few rows at a time", () -> {
            db.setAutoCommit(false);
            try (PreparedStatement statement = db.prepareStatement("SELECT id, email FROM customer ORDER BY id")) {
                statement.setFetchSize(3);
                return rows(statement.executeQuery());
            } finally {
                db.commit();
                db.setAutoCommit(true);
            }
        });
        step(kind + ": update and returning", () -> ask("UPDATE customer SET ssn = ?, birth = ? WHERE account_id = ? AND email = ? RETURNING id, ssn, birth", "canary7f3-upd", null, 1, "canary7f3-3@example.com")
            + ask("UPDATE customer SET ssn = ? WHERE rank > ?", "canary7f3-many", base + 15));
        step(kind + ": upsert", () -> ask("INSERT INTO customer (account_id, name, email) VALUES (?, ?, ?) ON CONFLICT (account_id, email) DO UPDATE SET ssn = ? RETURNING name, ssn", 1, "x", "canary7f3-3@example.com", "canary7f3-ups"));
        step(kind + ": savepoint", () -> {
            db.setAutoCommit(false);
            try {
                ask("UPDATE customer SET ssn = ? WHERE id = 1", "canary7f3-outer");
                Savepoint point = db.setSavepoint();
                String failed = "";
                try { batch(base + 2, base + 3); } catch (SQLException error) { failed = error.getSQLState(); }
                db.rollback(point);
                return failed + " " + ask("SELECT ssn FROM customer WHERE id = 1");
            } finally {
                db.commit();
                db.setAutoCommit(true);
            }
        });
        step(kind + ": updatable results", () -> {
            try (Statement statement = db.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet found = statement.executeQuery("SELECT id, name, rank FROM customer ORDER BY id LIMIT 3");
                found.last();
                found.updateInt("rank", 77);
                found.updateRow();
                return ask("SELECT rank FROM customer WHERE id = 3");
            }
        });
        step(kind + ": updatable results, a sealed column", () -> {
            try (Statement statement = db.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet found = statement.executeQuery("SELECT id, name, ssn FROM customer ORDER BY id LIMIT 3");
                found.last();
                found.updateString("ssn", "canary7f3-updated");
                found.updateRow();
                return ask("SELECT ssn FROM customer WHERE id = 3");
            }
        });
        step(kind + ": refused", () -> ask("SELECT name FROM customer WHERE email LIKE ?", "canary%"));
        step(kind + ": an error, and on", () -> ask("SELECT 1 / 0"));
        db.close();
    }

    public static void main(String[] args) throws Exception {
        db = connect();
        System.out.println("version " + db.getMetaData().getDriverVersion());
        step("schema", () -> {
            try (Statement statement = db.createStatement()) {
                for (String sql : Files.readString(Path.of(args[0])).split(";\\s*\n")) if (!sql.isBlank()) statement.execute(sql);
                statement.execute("INSERT INTO account (name) VALUES ('one'), ('two'), ('three')");
            }
            return "";
        });
        step("metadata", () -> {
            StringBuilder text = new StringBuilder();
            try (ResultSet found = db.getMetaData().getColumns(null, "public", "account", null)) {
                while (found.next()) text.append(found.getString("COLUMN_NAME")).append(' ').append(found.getString("TYPE_NAME")).append('\n');
            }
            try (ResultSet found = db.getMetaData().getPrimaryKeys(null, "public", "customer")) {
                while (found.next()) text.append(found.getString("COLUMN_NAME")).append('\n');
            }
            return text.toString();
        });
        db.close();
        all("default", 0);
        all("simple", 100, "preferQueryMode", "simple");
        all("cached", 200, "prepareThreshold", "1", "defaultRowFetchSize", "4");
        all("rewritten batches", 300, "reWriteBatchedInserts", "true", "binaryTransfer", "true");
        db = connect();
        step("COPY", () -> {
            var copy = db.unwrap(PGConnection.class).getCopyAPI();
            long in = copy.copyIn("COPY orders (account_id, customer_id, number, comment) FROM STDIN (FORMAT csv)", new StringReader("1,1,1,canary7f3-copied\n2,2,2,\n"));
            StringWriter out = new StringWriter();
            copy.copyOut("COPY (SELECT number, comment FROM orders ORDER BY id) TO STDOUT", out);
            return in + " " + out;
        });
        step("at the end", () -> ask("SELECT * FROM customer ORDER BY id"));
        db.close();
    }
}
