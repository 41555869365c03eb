// The catalogue survives the process: what a call has answered is there when the file is opened again, a call that failed has
// changed nothing, and no id is given twice. Files that are not its own are refused, with the reason.

#include "coordinator/catalogue.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>
#include <functional>
#include <optional>

#include "tests/unit/coordinator/temporary_directory.h"
#include "tests/unit/core/model_spec_fixture.h"

namespace kvgrid::coordinator {
namespace {

ModelRecord model_named(std::string name) {
    ModelRecord record{.spec = small_spec(), .grid = {2, 1}, .pool_bytes_per_worker = 1 << 20};
    record.spec.name = std::move(name);
    return record;
}

Member member(std::uint64_t worker) {
    return {WorkerId{worker},
            {.incarnation = 0xfedcba9876543210 + worker,
             .endpoint = "127.0.0.1:7071",
             .host = "x",
             .process_id = 77,
             .mpi_rank = 3,
             .memory_bytes = std::uint64_t{1} << 40}};
}

class CatalogueTest : public ::testing::Test {
  protected:
    CatalogueTest() { reopen(); }

    void reopen() {
        catalogue.reset();
        auto opened = Catalogue::open(directory.path());
        ASSERT_TRUE(opened) << opened.error().to_string();
        catalogue.emplace(*std::move(opened));
    }

    std::filesystem::path file() const { return directory.path() / "catalogue.sqlite"; }

    void damage(const std::function<void(Database&)>& change) {
        catalogue.reset();
        auto database = Database::open(file());
        ASSERT_TRUE(database);
        change(*database);
    }

    Error refusal() { return Catalogue::open(directory.path()).error(); }

    TemporaryDirectory directory;
    std::optional<Catalogue> catalogue;
};

TEST_F(CatalogueTest, AModelIsThereAfterReopening) {
    const ModelRecord reserved = catalogue->reserve_model(model_named("a")).value();
    EXPECT_FALSE(catalogue->model(reserved.id)->confirmed);
    ASSERT_TRUE(catalogue->confirm_model(reserved.id, 12345));
    reopen();

    const ModelRecord read = catalogue->find_model("a").value().value();
    EXPECT_EQ(read.id, reserved.id);
    EXPECT_EQ(read.spec, reserved.spec);
    EXPECT_EQ(read.grid, (GridShape{2, 1}));
    EXPECT_EQ(read.pool_bytes_per_worker, 12345u);
    EXPECT_TRUE(read.confirmed);
}

TEST_F(CatalogueTest, ASequenceIsThereAfterReopening) {
    const auto parent = catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"}).value();
    const auto child = catalogue->reserve_sequence({.model = ModelId{2}, .tenant = "t", .parent = parent.id}).value();
    ASSERT_TRUE(catalogue->confirm_sequence(child.id));
    reopen();

    const auto of_model = catalogue->sequences(ModelId{2}).value();
    ASSERT_EQ(of_model.size(), 1u);
    EXPECT_EQ(of_model[0].id, child.id);
    EXPECT_EQ(of_model[0].tenant, "t");
    EXPECT_EQ(of_model[0].parent, parent.id);
    EXPECT_TRUE(of_model[0].confirmed);
    EXPECT_EQ(catalogue->sequences()->size(), 2u);
    EXPECT_FALSE(catalogue->sequence(parent.id)->confirmed);
}

TEST_F(CatalogueTest, ASequenceThatIsKeptIsThereWithItsNames) {
    std::vector<PrefixHash> names(3);
    names[1].fill(std::byte{0});
    names[2].fill(std::byte{0xff});
    const auto kept = catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t", .prefix = names}).value();
    catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"}).value();
    reopen();

    EXPECT_EQ(catalogue->sequence(kept.id)->prefix, names);
    EXPECT_TRUE(catalogue->sequences()->at(1).prefix.empty());
    damage([](Database& database) { ASSERT_TRUE(database.execute("UPDATE sequences SET prefix = x'1234'")); });
    reopen();
    EXPECT_EQ(catalogue->sequence(kept.id).error(), Errc::corrupt);
}

TEST_F(CatalogueTest, AKeptSequenceSharesPagesWithWhatItWasForkedFromAndWhatWasForkedFromIt) {
    const auto reserve = [&](SequenceId parent, std::size_t pages) {
        return catalogue
            ->reserve_sequence(
                {.model = ModelId{1}, .tenant = "t", .parent = parent, .prefix = std::vector<PrefixHash>(pages)})
            ->id;
    };
    const auto source = reserve({}, 0), kept = reserve(source, 1), other = reserve(SequenceId{4711}, 2);
    using Ids = std::set<SequenceId>;
    EXPECT_EQ(catalogue->unshared_kept(ModelId{1}).value(), Ids{other});
    ASSERT_TRUE(catalogue->erase_sequence(source));
    EXPECT_EQ(catalogue->unshared_kept(ModelId{1}).value(), (Ids{kept, other}));
    reserve(other, 0);
    EXPECT_EQ(catalogue->unshared_kept(ModelId{1}).value(), Ids{kept});
    EXPECT_TRUE(catalogue->unshared_kept(ModelId{2})->empty());
}

TEST_F(CatalogueTest, IdsAreNeverGivenTwice) {
    const auto worker = catalogue->take_worker_id().value();
    const auto model = catalogue->reserve_model(model_named("a"))->id;
    const auto sequence = catalogue->reserve_sequence({.model = model, .tenant = "t"})->id;
    ASSERT_TRUE(catalogue->erase_model(model));
    ASSERT_TRUE(catalogue->erase_sequence(sequence));
    reopen();

    EXPECT_GT(catalogue->take_worker_id().value(), worker);
    EXPECT_GT(catalogue->reserve_model(model_named("a"))->id, model);
    EXPECT_GT(catalogue->reserve_sequence({.model = model, .tenant = "t"})->id, sequence);
}

TEST_F(CatalogueTest, AModelsNameIsTakenOnce) {
    ASSERT_TRUE(catalogue->reserve_model(model_named("a")));
    EXPECT_EQ(catalogue->reserve_model(model_named("a")).error(), Errc::already_exists);
    EXPECT_EQ(catalogue->models()->size(), 1u);
}

TEST_F(CatalogueTest, WhatIsNotThereIsNotFound) {
    EXPECT_EQ(catalogue->model(ModelId{9}).error(), Errc::not_found);
    EXPECT_EQ(catalogue->sequence(SequenceId{9}).error(), Errc::not_found);
    EXPECT_FALSE(catalogue->find_model("none")->has_value());
    EXPECT_TRUE(catalogue->erase_sequence(SequenceId{9}));
}

TEST_F(CatalogueTest, GenerationsGrowAndEndTheSequencesOfTheLast) {
    EXPECT_EQ(catalogue->grid()->generation, Generation{});
    ASSERT_TRUE(catalogue->reserve_model(model_named("a")));
    EXPECT_EQ(catalogue->form_grid({member(1), member(2)})->grid.generation, Generation{1});
    const auto sequence = catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"})->id;
    reopen();
    EXPECT_EQ(catalogue->grid()->members, (std::vector<Member>{member(1), member(2)}));

    const auto formed = catalogue->form_grid({member(3)}).value();
    EXPECT_EQ(formed.grid.generation, Generation{2});
    ASSERT_EQ(formed.lost.size(), 1u);
    EXPECT_EQ(formed.lost[0].id, sequence);
    reopen();
    EXPECT_EQ(catalogue->grid()->generation, Generation{2});
    EXPECT_EQ(catalogue->grid()->members, std::vector<Member>{member(3)});
    EXPECT_TRUE(catalogue->sequences()->empty());
    EXPECT_EQ(catalogue->models()->size(), 1u);
}

TEST_F(CatalogueTest, ASecondProcessIsKeptOut) {
    const Error error = refusal();
    EXPECT_EQ(error, Errc::unavailable);
    EXPECT_NE(error.message.find("another process holds it"), std::string::npos) << error.message;
}

TEST_F(CatalogueTest, AnotherSchemaVersionIsRefused) {
    damage([](Database& database) { ASSERT_TRUE(database.execute("PRAGMA user_version=7")); });
    const Error error = refusal();
    EXPECT_EQ(error, Errc::unsupported);
    EXPECT_NE(error.message.find("schema version 7"), std::string::npos) << error.message;
}

TEST_F(CatalogueTest, AForeignDatabaseIsRefused) {
    damage([](Database& database) { ASSERT_TRUE(database.execute("PRAGMA user_version=0")); });
    EXPECT_EQ(refusal(), Errc::unsupported);
}

TEST_F(CatalogueTest, AFileThatIsNoDatabaseIsRefused) {
    catalogue.reset();
    std::ofstream(file()) << std::string(8192, 'x');
    const Error error = refusal();
    EXPECT_EQ(error, Errc::corrupt);
    EXPECT_NE(error.message.find("not a SQLite database"), std::string::npos) << error.message;
}

TEST_F(CatalogueTest, ADamagedDatabaseIsRefused) {
    ASSERT_TRUE(catalogue->take_worker_id());
    catalogue.reset();  // the write-ahead log flows back into the file
    std::fstream damaged(file(), std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(4096);
    damaged << std::string(4096, '\x5a');
    damaged.close();
    EXPECT_EQ(refusal(), Errc::corrupt);
}

TEST_F(CatalogueTest, ASpecThatBreaksTheRulesIsCorrupt) {
    const auto id = catalogue->reserve_model(model_named("a"))->id;
    damage([](Database& database) { ASSERT_TRUE(database.execute("UPDATE models SET spec = '{}'")); });
    reopen();
    EXPECT_EQ(catalogue->model(id).error(), Errc::corrupt);
}

// A process may not write files beyond RLIMIT_FSIZE: the nearest thing to a full disk.
TEST_F(CatalogueTest, ADiskThatTakesNothingIsAnErrorAndChangesNothing) {
    const auto before = catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"})->id;
    rlimit usual{};
    getrlimit(RLIMIT_FSIZE, &usual);
    const auto handler = signal(SIGXFSZ, SIG_IGN);
    rlimit none = usual;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &none);
    auto refused = catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"});
    auto not_formed = catalogue->form_grid({member(1)});
    setrlimit(RLIMIT_FSIZE, &usual);
    signal(SIGXFSZ, handler);

    EXPECT_EQ(refused.error(), Errc::unavailable) << refused.error().to_string();
    EXPECT_EQ(not_formed.error(), Errc::unavailable);
    EXPECT_EQ(catalogue->sequences()->size(), 1u);
    EXPECT_GT(catalogue->reserve_sequence({.model = ModelId{1}, .tenant = "t"})->id, before);
    EXPECT_EQ(catalogue->grid()->generation, Generation{});
}

TEST_F(CatalogueTest, ATransactionThatIsNotCommittedHasNotHappened) {
    damage([](Database& database) {
        {
            auto transaction = Transaction::begin(database);
            ASSERT_TRUE(transaction);
            ASSERT_TRUE(database.execute("INSERT INTO counters VALUES('model', 41)"));
        }
        auto count = database.prepare("SELECT count(*) FROM counters");
        ASSERT_TRUE(count->step().value());
        EXPECT_EQ(count->integer(0), 0);
    });
}

}  // namespace
}  // namespace kvgrid::coordinator
