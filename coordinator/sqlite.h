#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace kvgrid::coordinator {

class Statement;

// One SQLite database, durable at each commit (write-ahead log, fsync) and held by one process at a time. One thread.
//
//   Errors   `corrupt` for a file that is no database or is damaged; `unavailable` where the disk or another process is in
//            the way, and what was asked for has not happened then; `already_exists` for a value that has to be unique.
class Database {
  public:
    // Makes the file if it is not there. One that is there is held, looked over, and not changed.
    static Result<Database> open(const std::filesystem::path& path);
    // From now on each commit is on the disk when it returns. Before the first change.
    Status make_durable();

    Status execute(const std::string& sql);
    Result<Statement> prepare(std::string_view sql);

    // Told after each commit how long it took to reach the disk.
    using OnCommit = std::function<void(std::chrono::nanoseconds)>;
    void on_commit(OnCommit told) { on_commit_ = std::move(told); }

    // The error of the last call, as a Result's.
    Error error(std::string_view doing) const;

  private:
    friend class Statement;
    friend class Transaction;
    // Runs `commit`, which returns a Status, and tells.
    template <class Commit>
    Status timed(Commit commit) const {
        const auto start = std::chrono::steady_clock::now();
        Status done = commit();
        if (done && on_commit_) on_commit_(std::chrono::steady_clock::now() - start);
        return done;
    }

    struct Close {
        void operator()(sqlite3* handle) const;
    };
    explicit Database(std::unique_ptr<sqlite3, Close> handle, std::string path)
        : handle_(std::move(handle)), path_(std::move(path)) {}

    std::unique_ptr<sqlite3, Close> handle_;
    std::string path_;
    OnCommit on_commit_;
};

// A prepared statement. Parameters and columns count from 0. Does not outlive its database.
class Statement {
  public:
    Statement& bind(std::int64_t value);                // the next parameter
    Statement& bind(std::string_view text);             // copied
    Statement& bind(std::span<const std::byte> bytes);  // copied; none: NULL

    // True: there is a row, whose columns can be read until the next step. False: done.
    Result<bool> step();
    // For statements that give no rows.
    Status run();

    std::int64_t integer(int column) const;
    std::string text(int column) const;
    std::span<const std::byte> bytes(int column) const;  // until the next step; none for NULL

  private:
    friend class Database;
    struct Finalize {
        void operator()(sqlite3_stmt* handle) const;
    };
    Statement(const Database& database, std::unique_ptr<sqlite3_stmt, Finalize> handle)
        : database_(&database), handle_(std::move(handle)) {}

    const Database* database_;
    std::unique_ptr<sqlite3_stmt, Finalize> handle_;
    int bound_count_ = 0;
    bool bind_failed_ = false;
};

// All of the statements between `begin` and `commit`, or none of them: taken back unless committed.
class Transaction {
  public:
    static Result<Transaction> begin(Database& database);
    Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction();

    Status commit();

  private:
    explicit Transaction(Database& database) : database_(&database) {}
    Database* database_;  // null: over
};

}  // namespace kvgrid::coordinator
