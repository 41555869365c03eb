#include "coordinator/catalogue.h"

#include <fmt/format.h>

#include <cstring>

namespace kvgrid::coordinator {

namespace {

constexpr std::string_view kModelColumns = "id, spec, head_parts, sequence_parts, pool_bytes, confirmed";
constexpr std::string_view kSequenceColumns = "id, model, tenant, parent, confirmed, prefix";

// SQLite's integers are signed; ids, incarnations and sizes keep their bits.
std::int64_t stored(std::uint64_t value) {
    return static_cast<std::int64_t>(value);
}

std::uint64_t unsigned_at(const Statement& row, int column) {
    return static_cast<std::uint64_t>(row.integer(column));
}

Result<ModelRecord> read_model(const Statement& row) {
    const ModelId id{unsigned_at(row, 0)};
    auto spec = parse_model_spec(row.text(1));
    if (!spec) {
        return {Errc::corrupt, fmt::format("model {} of the catalogue: {}", id.value, spec.error().message)};
    }
    const GridShape grid{static_cast<int>(row.integer(2)), static_cast<int>(row.integer(3))};
    if (grid.head_parts < 1 || grid.sequence_parts < 1) {
        return {Errc::corrupt, fmt::format("model {} of the catalogue is split {} x {}", id.value, grid.head_parts,
                                           grid.sequence_parts)};
    }
    return ModelRecord{id, *std::move(spec), grid, unsigned_at(row, 4), row.integer(5) != 0};
}

Result<SequenceRecord> read_sequence(const Statement& row) {
    SequenceRecord record{SequenceId{unsigned_at(row, 0)}, ModelId{unsigned_at(row, 1)}, row.text(2),
                          SequenceId{unsigned_at(row, 3)}, row.integer(4) != 0};
    const auto names = row.bytes(5);
    if (names.size() % sizeof(PrefixHash) != 0) {
        return {Errc::corrupt, fmt::format("sequence {} of the catalogue is kept under {} bytes of names",
                                           record.id.value, names.size())};
    }
    record.prefix.resize(names.size() / sizeof(PrefixHash));
    if (!names.empty()) std::memcpy(record.prefix.data(), names.data(), names.size());
    return record;
}

// All rows, each read by `read`: Statement -> Result<Record>.
template <class Record>
Result<std::vector<Record>> read_all(Statement& statement, Result<Record> (*read)(const Statement&)) {
    std::vector<Record> records;
    for (;;) {
        auto row = statement.step();
        if (!row) return row.error();
        if (!*row) return records;
        auto record = read(statement);
        if (!record) return record.error();
        records.push_back(*std::move(record));
    }
}

template <class Record>
Result<std::optional<Record>> read_one(Statement& statement, Result<Record> (*read)(const Statement&)) {
    auto row = statement.step();
    if (!row) return row.error();
    if (!*row) return std::optional<Record>{};
    auto record = read(statement);
    if (!record) return record.error();
    return std::optional<Record>{*std::move(record)};
}

Status insert_model(Database& database, const ModelRecord& record) {
    auto insert = database.prepare("INSERT INTO models VALUES(?,?,?,?,?,?,?)");
    if (!insert) return insert.error();
    insert->bind(stored(record.id.value)).bind(record.spec.name).bind(to_json(record.spec));
    insert->bind(record.grid.head_parts).bind(record.grid.sequence_parts).bind(stored(record.pool_bytes_per_worker));
    return insert->bind(record.confirmed).run();
}

Status insert_members(Database& database, const std::vector<Member>& members) {
    int rank = 0;
    for (const Member& member : members) {
        auto insert = database.prepare("INSERT INTO members VALUES(?,?,?,?,?,?,?,?)");
        if (!insert) return insert.error();
        const WorkerProcess& process = member.process;
        insert->bind(rank++).bind(stored(member.worker.value)).bind(stored(process.incarnation)).bind(process.endpoint);
        insert->bind(process.host).bind(process.process_id).bind(process.mpi_rank).bind(stored(process.memory_bytes));
        if (auto inserted = insert->run(); !inserted) return inserted;
    }
    return {};
}

}  // namespace

Result<std::uint64_t> Catalogue::next(std::string_view counter) {
    auto statement = database_.prepare(
        "INSERT INTO counters VALUES(?, 1) ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value");
    if (!statement) return statement.error();
    auto row = statement->bind(counter).step();
    if (!row) return row.error();
    return unsigned_at(*statement, 0);
}

Result<WorkerId> Catalogue::take_worker_id() {
    auto id = next("worker");
    if (!id) return id.error();
    return WorkerId{*id};
}

Result<std::uint64_t> Catalogue::take_term() {
    return next("term");
}

Result<Grid> Catalogue::grid() {
    auto counter = database_.prepare("SELECT value FROM counters WHERE name = 'generation'");
    if (!counter) return counter.error();
    auto found = counter->step();
    if (!found) return found.error();
    if (!*found) return Grid{};

    auto select = database_.prepare(
        "SELECT worker, incarnation, endpoint, host, process_id, mpi_rank, memory_bytes FROM members ORDER BY rank");
    if (!select) return select.error();
    auto members = read_all<Member>(*select, [](const Statement& row) -> Result<Member> {
        return Member{WorkerId{unsigned_at(row, 0)},
                      {unsigned_at(row, 1), row.text(2), row.text(3), static_cast<std::int32_t>(row.integer(4)),
                       static_cast<std::int32_t>(row.integer(5)), unsigned_at(row, 6)}};
    });
    if (!members) return members.error();
    return Grid{Generation{unsigned_at(*counter, 0)}, *std::move(members)};
}

Result<Catalogue::Formed> Catalogue::form_grid(std::vector<Member> members) {
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    auto lost = sequences();
    if (!lost) return lost.error();
    auto generation = next("generation");
    if (!generation) return generation.error();
    if (auto cleared = database_.execute("DELETE FROM sequences; DELETE FROM members"); !cleared)
        return cleared.error();
    if (auto inserted = insert_members(database_, members); !inserted) return inserted.error();
    if (auto committed = transaction->commit(); !committed) return committed.error();
    return Formed{{Generation{*generation}, std::move(members)}, *std::move(lost)};
}

Result<std::vector<ModelRecord>> Catalogue::models() {
    auto select = database_.prepare(fmt::format("SELECT {} FROM models ORDER BY id", kModelColumns));
    if (!select) return select.error();
    return read_all<ModelRecord>(*select, read_model);
}

Result<std::optional<ModelRecord>> Catalogue::find_model(std::string_view name) {
    auto select = database_.prepare(fmt::format("SELECT {} FROM models WHERE name = ?", kModelColumns));
    if (!select) return select.error();
    return read_one<ModelRecord>(select->bind(name), read_model);
}

Result<ModelRecord> Catalogue::model(ModelId id) {
    auto select = database_.prepare(fmt::format("SELECT {} FROM models WHERE id = ?", kModelColumns));
    if (!select) return select.error();
    auto record = read_one<ModelRecord>(select->bind(stored(id.value)), read_model);
    if (!record) return record.error();
    if (!record->has_value()) return {Errc::not_found, fmt::format("there is no model {}", id.value)};
    return **std::move(record);
}

Result<ModelRecord> Catalogue::reserve_model(ModelRecord record) {
    auto taken = find_model(record.spec.name);
    if (!taken) return taken.error();
    if (taken->has_value()) {
        return {Errc::already_exists, fmt::format("there is a model named {} already", record.spec.name)};
    }
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    auto id = next("model");
    if (!id) return id.error();
    record.id = ModelId{*id};
    record.confirmed = false;
    if (auto inserted = insert_model(database_, record); !inserted) return inserted.error();
    if (auto committed = transaction->commit(); !committed) return committed.error();
    return record;
}

Status Catalogue::adopt_model(const ModelRecord& record) {
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    if (auto inserted = insert_model(database_, record); !inserted) return inserted;
    // Ids that come later are higher.
    auto raise = database_.prepare(
        "INSERT INTO counters VALUES('model', ?1) ON CONFLICT(name) DO UPDATE SET value = max(value, ?1)");
    if (!raise) return raise.error();
    if (auto raised = raise->bind(stored(record.id.value)).run(); !raised) return raised;
    return transaction->commit();
}

Status Catalogue::confirm_model(ModelId id, std::uint64_t pool_bytes_per_worker) {
    auto update = database_.prepare("UPDATE models SET confirmed = 1, pool_bytes = ? WHERE id = ?");
    if (!update) return update.error();
    return update->bind(stored(pool_bytes_per_worker)).bind(stored(id.value)).run();
}

Status Catalogue::erase_model(ModelId id) {
    auto erase = database_.prepare("DELETE FROM models WHERE id = ?");
    if (!erase) return erase.error();
    return erase->bind(stored(id.value)).run();
}

Result<std::vector<SequenceRecord>> Catalogue::sequences(ModelId model) {
    auto select = database_.prepare(
        fmt::format("SELECT {} FROM sequences WHERE ?1 = 0 OR model = ?1 ORDER BY id", kSequenceColumns));
    if (!select) return select.error();
    return read_all<SequenceRecord>(select->bind(stored(model.value)), read_sequence);
}

Result<std::vector<SequenceRecord>> Catalogue::open_sequences(ModelId model, SequenceId after, int limit) {
    auto select = database_.prepare(fmt::format(
        "SELECT {} FROM sequences WHERE (?1 = 0 OR model = ?1) AND id > ?2 AND confirmed ORDER BY id LIMIT ?3",
        kSequenceColumns));
    if (!select) return select.error();
    return read_all<SequenceRecord>(select->bind(stored(model.value)).bind(stored(after.value)).bind(limit),
                                    read_sequence);
}

Result<std::int64_t> Catalogue::sequence_count() {
    auto count = database_.prepare("SELECT count(*) FROM sequences");
    if (!count) return count.error();
    auto row = count->step();
    if (!row) return row.error();
    return count->integer(0);
}

Result<SequenceRecord> Catalogue::sequence(SequenceId id) {
    auto select = database_.prepare(fmt::format("SELECT {} FROM sequences WHERE id = ?", kSequenceColumns));
    if (!select) return select.error();
    auto record = read_one<SequenceRecord>(select->bind(stored(id.value)), read_sequence);
    if (!record) return record.error();
    if (!record->has_value()) return {Errc::not_found, fmt::format("there is no sequence {}", id.value)};
    return **std::move(record);
}

Result<std::set<SequenceId>> Catalogue::unshared_kept(ModelId model) {
    auto select = database_.prepare(
        "SELECT id FROM sequences AS kept WHERE model = ? AND prefix IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM sequences WHERE parent = kept.id)"
        " AND NOT EXISTS (SELECT 1 FROM sequences WHERE id = kept.parent)");
    if (!select) return select.error();
    auto ids = read_all<SequenceId>(select->bind(stored(model.value)), [](const Statement& row) -> Result<SequenceId> {
        return SequenceId{unsigned_at(row, 0)};
    });
    if (!ids) return ids.error();
    return std::set<SequenceId>(ids->begin(), ids->end());
}

Result<SequenceRecord> Catalogue::reserve_sequence(SequenceRecord record) {
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    auto id = next("sequence");
    if (!id) return id.error();
    auto insert = database_.prepare("INSERT INTO sequences VALUES(?,?,?,?,0,?)");
    if (!insert) return insert.error();
    insert->bind(stored(*id)).bind(stored(record.model.value)).bind(record.tenant).bind(stored(record.parent.value));
    insert->bind(std::as_bytes(std::span(record.prefix)));
    if (auto inserted = insert->run(); !inserted) return inserted.error();
    if (auto committed = transaction->commit(); !committed) return committed.error();
    record.id = SequenceId{*id};
    record.confirmed = false;
    return record;
}

Status Catalogue::confirm_sequence(SequenceId id) {
    auto update = database_.prepare("UPDATE sequences SET confirmed = 1 WHERE id = ?");
    if (!update) return update.error();
    return update->bind(stored(id.value)).run();
}

Status Catalogue::erase_sequence(SequenceId id) {
    auto erase = database_.prepare("DELETE FROM sequences WHERE id = ?");
    if (!erase) return erase.error();
    return erase->bind(stored(id.value)).run();
}

Status Catalogue::erase_sequences(std::span<const SequenceId> ids) {
    auto transaction = Transaction::begin(database_);
    if (!transaction) return transaction.error();
    for (const SequenceId id : ids) {
        if (auto erased = erase_sequence(id); !erased) return erased;
    }
    return transaction->commit();
}

}  // namespace kvgrid::coordinator
