#include <algorithm>

#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

namespace {

constexpr std::uint32_t kPageMax = 10'000;  // at up to 160 bytes each, a tenth of what a reply may have

}  // namespace

Result<wire::ListSequencesReply> list_sequences(Coordinator& coordinator, const wire::ListSequencesRequest& request) {
    const ModelId of{request.model()};
    if (of) {
        if (auto model = coordinator.catalogue().model(of); !model) return model.error();
    }
    const auto limit = request.limit() == 0 ? kPageMax : std::min(request.limit(), kPageMax);
    // One more than the page has says whether there is another page.
    auto sequences =
        coordinator.catalogue().open_sequences(of, SequenceId{request.after()}, static_cast<int>(limit) + 1);
    if (!sequences) return sequences.error();
    wire::ListSequencesReply reply;
    reply.set_more(sequences->size() > limit);
    if (reply.more()) sequences->pop_back();
    for (const SequenceRecord& sequence : *sequences) *reply.add_sequences() = to_wire(sequence);
    return reply;
}

}  // namespace kvgrid::coordinator
