// The tables, and how a catalogue's file is opened. A change of the tables is a new schema version.
#include <fmt/format.h>

#include "coordinator/catalogue.h"

namespace kvgrid::coordinator {

namespace {

constexpr std::int64_t kSchemaVersion = 2;

constexpr const char* kSchema = R"(
    CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE members(rank INTEGER PRIMARY KEY, worker INTEGER NOT NULL, incarnation INTEGER NOT NULL,
                         endpoint TEXT NOT NULL, host TEXT NOT NULL, process_id INTEGER NOT NULL,
                         mpi_rank INTEGER NOT NULL, memory_bytes INTEGER NOT NULL);
    CREATE TABLE models(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,
                        head_parts INTEGER NOT NULL, sequence_parts INTEGER NOT NULL,
                        pool_bytes INTEGER NOT NULL, confirmed INTEGER NOT NULL);
    CREATE TABLE sequences(id INTEGER PRIMARY KEY, model INTEGER NOT NULL, tenant TEXT NOT NULL,
                           parent INTEGER NOT NULL, confirmed INTEGER NOT NULL,
                           prefix BLOB);  -- of one that is kept: names of its pages, 32 bytes each
    CREATE INDEX forks ON sequences(parent);
    CREATE INDEX kept ON sequences(model) WHERE prefix IS NOT NULL;
)";

Result<std::int64_t> read_integer(Database& database, std::string_view sql) {
    auto statement = database.prepare(sql);
    if (!statement) return statement.error();
    auto row = statement->step();
    if (!row) return row.error();
    return *row ? statement->integer(0) : 0;
}

}  // namespace

Result<Catalogue> Catalogue::open(const std::filesystem::path& state_dir) {
    std::error_code failed;
    std::filesystem::create_directories(state_dir, failed);
    if (failed) {
        return {Errc::unavailable,
                fmt::format("could not make the state directory {}: {}", state_dir.string(), failed.message())};
    }
    const auto path = state_dir / "catalogue.sqlite";
    auto database = Database::open(path);
    if (!database) return database.error();
    Catalogue catalogue{std::move(database).value()};
    if (auto prepared = catalogue.prepare_schema(path.string()); !prepared) return prepared.error();
    return catalogue;
}

Status Catalogue::prepare_schema(const std::string& path) {
    auto version = read_integer(database_, "PRAGMA user_version");
    if (!version) return version.error();
    if (*version == kSchemaVersion) return database_.make_durable();

    auto table_count = read_integer(database_, "SELECT count(*) FROM sqlite_master");
    if (!table_count) return table_count.error();
    if (*version != 0 || *table_count != 0) {
        return {Errc::unsupported,
                fmt::format(
                    "{} has schema version {}, and this coordinator reads version {}: start the one that wrote it, or "
                    "name another state directory",
                    path, *version, kSchemaVersion)};
    }
    if (auto durable = database_.make_durable(); !durable) return durable;
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    if (auto made = database_.execute(kSchema); !made) return made;
    if (auto set = database_.execute(fmt::format("PRAGMA user_version={}", kSchemaVersion)); !set) return set;
    return transaction->commit();
}

}  // namespace kvgrid::coordinator
