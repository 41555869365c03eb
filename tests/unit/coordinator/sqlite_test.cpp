// A disk without room is an error of the call that needed it: the rest of the database is as it was, and goes on when there is room.
#include "coordinator/sqlite.h"

#include <gtest/gtest.h>

#include "tests/unit/coordinator/temporary_directory.h"

namespace kvgrid::coordinator {
namespace {

class FullDatabase : public ::testing::Test {
  protected:
    FullDatabase() {
        database_.make_durable().value();
        database_.execute("CREATE TABLE lines(text TEXT)").value();
        insert("the first").value();
    }

    Status insert(std::string_view text) {
        auto transaction = Transaction::begin(database_);
        if (!transaction) return transaction.error();
        Status inserted = database_.prepare("INSERT INTO lines VALUES(?)").value().bind(text).run();
        if (!inserted) return inserted;
        return transaction->commit();
    }
    std::int64_t count() {
        auto count = database_.prepare("SELECT count(*) FROM lines").value();
        count.step().value();
        return count.integer(0);
    }
    // What SQLITE_FULL is made of without a disk of one's own: as on a full one, no page can be added.
    void set_pages_max(std::int64_t pages) {
        auto pragma = database_.prepare("PRAGMA max_page_count = " + std::to_string(pages)).value();
        pragma.step().value();
    }

    TemporaryDirectory directory_;
    Database database_ = Database::open(directory_.path() / "lines.db").value();
};

TEST_F(FullDatabase, RefusesWhatNeedsRoomAndKeepsTheRest) {
    const std::string large(1 << 20, 'x');
    set_pages_max(1);  // less than there are: no more

    const Status full = insert(large);

    ASSERT_FALSE(full);
    EXPECT_EQ(full.error(), Errc::unavailable);
    EXPECT_NE(full.error().message.find("make room on its disk, then retry"), std::string::npos)
        << full.error().message;
    EXPECT_EQ(count(), 1);
}

TEST_F(FullDatabase, GoesOnWhenThereIsRoom) {
    const std::string large(1 << 20, 'x');
    set_pages_max(1);
    ASSERT_FALSE(insert(large));

    set_pages_max(1 << 20);

    EXPECT_TRUE(insert(large));
    EXPECT_EQ(count(), 2);
}

}  // namespace
}  // namespace kvgrid::coordinator
