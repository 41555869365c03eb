#include "coordinator/sqlite.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cstring>

namespace kvgrid::coordinator {

namespace {

Errc errc_of(int sqlite_code) {
    switch (sqlite_code & 0xff) {
        case SQLITE_NOTADB:
        case SQLITE_CORRUPT:
            return Errc::corrupt;
        case SQLITE_CONSTRAINT:
            return Errc::already_exists;
        case SQLITE_MISUSE:
        case SQLITE_RANGE:
        case SQLITE_ERROR:
            return Errc::internal;  // our SQL is wrong
        default:
            return Errc::unavailable;
    }
}

const char* advice_for(int sqlite_code) {
    switch (sqlite_code & 0xff) {
        case SQLITE_NOTADB:
            return "; this is not a SQLite database: name another state directory";
        case SQLITE_CORRUPT:
            return "; the database is damaged: restore it, or start with an empty state directory";
        case SQLITE_BUSY:
            return "; another process holds it: stop that one, or name another state directory";
        case SQLITE_FULL:
            return "; nothing has changed: make room on its disk, then retry";
        case SQLITE_IOERR:
            return "; nothing has changed: look at its disk (room, limits, health), then retry";
        default:
            return "";
    }
}

}  // namespace

void Database::Close::operator()(sqlite3* handle) const {
    sqlite3_close(handle);
}

void Statement::Finalize::operator()(sqlite3_stmt* handle) const {
    sqlite3_finalize(handle);
}

Result<Database> Database::open(const std::filesystem::path& path) {
    sqlite3* handle = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    const int opened = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
    Database database{std::unique_ptr<sqlite3, Close>(handle), path.string()};
    if (opened != SQLITE_OK) return database.error("open it");
    sqlite3_extended_result_codes(handle, 1);

    // Exclusive locking keeps a second coordinator out; the empty write transaction takes the lock now.
    const char* settings = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA foreign_keys=ON; BEGIN IMMEDIATE; COMMIT";
    if (auto set = database.execute(settings); !set) return set.error();

    auto check = database.prepare("PRAGMA quick_check(1)");
    if (!check) return check.error();
    auto row = check->step();
    if (!row) return row.error();
    if (*row && check->text(0) != "ok") {
        return {Errc::corrupt, fmt::format("{} is damaged: {}; restore it, or start with an empty state directory",
                                           path.string(), check->text(0))};
    }
    return database;
}

Status Database::make_durable() {
    return execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
}

Error Database::error(std::string_view doing) const {
    const int code = handle_ ? sqlite3_extended_errcode(handle_.get()) : SQLITE_NOMEM;
    std::string cause = handle_ ? sqlite3_errmsg(handle_.get()) : "out of memory";
    const int system_error = handle_ ? sqlite3_system_errno(handle_.get()) : 0;
    if (errc_of(code) == Errc::unavailable && system_error != 0) {
        cause += fmt::format(" ({})", std::strerror(system_error));
    }
    return {errc_of(code), fmt::format("{}: could not {}: {}{}", path_, doing, cause, advice_for(code))};
}

Status Database::execute(const std::string& sql) {
    if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
        return error("run \"" + sql + "\"");
    }
    return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr) != SQLITE_OK) {
        return error(fmt::format("prepare \"{}\"", sql));
    }
    return Statement{*this, std::unique_ptr<sqlite3_stmt, Statement::Finalize>(statement)};
}

Statement& Statement::bind(std::int64_t value) {
    bind_failed_ |= sqlite3_bind_int64(handle_.get(), ++bound_count_, value) != SQLITE_OK;
    return *this;
}

Statement& Statement::bind(std::string_view text) {
    bind_failed_ |= sqlite3_bind_text64(handle_.get(), ++bound_count_, text.data(), text.size(), SQLITE_TRANSIENT,
                                        SQLITE_UTF8) != SQLITE_OK;
    return *this;
}

Statement& Statement::bind(std::span<const std::byte> bytes) {
    const void* data = bytes.empty() ? nullptr : bytes.data();
    bind_failed_ |=
        sqlite3_bind_blob64(handle_.get(), ++bound_count_, data, bytes.size(), SQLITE_TRANSIENT) != SQLITE_OK;
    return *this;
}

Result<bool> Statement::step() {
    if (bind_failed_) return database_->error("bind a parameter");
    switch (sqlite3_step(handle_.get())) {
        case SQLITE_ROW:
            return true;
        case SQLITE_DONE:
            return false;
        default:
            return database_->error(fmt::format("run \"{}\"", sqlite3_sql(handle_.get())));
    }
}

Status Statement::run() {
    const auto once = [this]() -> Status {
        auto row = step();
        if (!row) return row.error();
        return {};
    };
    const bool is_transaction = sqlite3_get_autocommit(database_->handle_.get()) != 0;  // of its own
    return is_transaction ? database_->timed(once) : once();
}

std::int64_t Statement::integer(int column) const {
    return sqlite3_column_int64(handle_.get(), column);
}

std::string Statement::text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
    if (bytes == nullptr) return {};
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

std::span<const std::byte> Statement::bytes(int column) const {
    const auto* bytes = static_cast<const std::byte*>(sqlite3_column_blob(handle_.get(), column));
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

Result<Transaction> Transaction::begin(Database& database) {
    if (auto begun = database.execute("BEGIN IMMEDIATE"); !begun) return begun.error();
    return Transaction{database};
}

Transaction::~Transaction() {
    if (database_ == nullptr) return;
    // Some errors end the transaction by themselves; then there is nothing to take back, and that is well.
    (void)database_->execute("ROLLBACK");
}

Status Transaction::commit() {
    auto committed = database_->timed([this] { return database_->execute("COMMIT"); });
    if (committed) database_ = nullptr;
    return committed;
}

}  // namespace kvgrid::coordinator
