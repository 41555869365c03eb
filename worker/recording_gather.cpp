#include "worker/recording_gather.h"

#include <unistd.h>

#include <cstring>

namespace kvgrid::worker {

namespace {

struct Header {
    std::int64_t now_ns = 0;
    std::uint64_t span_count = 0;
    std::uint64_t dropped = 0;
    std::int32_t process_id = 0;
    std::uint32_t steps = 0;
    std::uint32_t finished = 0;
    std::uint32_t unused = 0;
    char host[64] = {};
};

Header header_of(const SpanRecorder::Recording& recording) {
    Header header{.now_ns = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1),
                  .span_count = recording.spans.size(),
                  .dropped = recording.dropped,
                  .process_id = getpid(),
                  .steps = recording.steps,
                  .finished = recording.finished};
    gethostname(header.host, sizeof header.host - 1);
    return header;
}

RankRecording read_block(const std::byte* block, const Header& mine) {
    Header header;
    std::memcpy(&header, block, sizeof header);
    RankRecording rank{.host = header.host, .process_id = header.process_id, .recording = {}};
    rank.recording.dropped = header.dropped;
    rank.recording.steps = header.steps;
    rank.recording.finished = header.finished != 0;
    rank.recording.spans.resize(header.span_count);
    std::memcpy(rank.recording.spans.data(), block + sizeof header, header.span_count * sizeof(Span));
    const std::int64_t shift = rank.host == mine.host ? 0 : mine.now_ns - header.now_ns;
    for (Span& span : rank.recording.spans) {
        span.start_ns += shift;
        span.end_ns += shift;
    }
    return rank;
}

}  // namespace

Result<std::vector<RankRecording>> gather_recordings(comm::Collective& collective, SpanRecorder& recorder, int root,
                                                     Deadline deadline) {
    const SpanRecorder::Recording recording = recorder.recording();
    std::int64_t largest[] = {static_cast<std::int64_t>(recording.spans.size())};
    if (Status agreed = collective.all_reduce(largest, comm::ReduceOp::max, deadline); !agreed) return agreed.error();
    const Header header = header_of(recording);
    std::vector<std::byte> mine(sizeof header + largest[0] * sizeof(Span));
    std::memcpy(mine.data(), &header, sizeof header);
    std::memcpy(mine.data() + sizeof header, recording.spans.data(), recording.spans.size() * sizeof(Span));
    const bool is_root = collective.rank() == root;
    std::vector<std::byte> all(is_root ? mine.size() * collective.size() : 0);
    if (Status done = collective.gather(mine, all, root, deadline); !done) return done.error();
    std::vector<RankRecording> by_rank;
    for (std::size_t at = 0; at < all.size(); at += mine.size()) by_rank.push_back(read_block(all.data() + at, header));
    return by_rank;
}

}  // namespace kvgrid::worker
