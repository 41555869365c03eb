#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

Result<wire::ListSequencesReply> list_sequences(Coordinator& coordinator, const wire::ListSequencesRequest& request) {
    const ModelId of{request.model()};
    if (of) {
        if (auto model = coordinator.catalogue().model(of); !model) return model.error();
    }
    auto sequences = coordinator.catalogue().sequences(of);
    if (!sequences) return sequences.error();
    wire::ListSequencesReply reply;
    for (const SequenceRecord& sequence : *sequences) {
        if (sequence.confirmed) *reply.add_sequences() = to_wire(sequence);
    }
    return reply;
}

}  // namespace kvgrid::coordinator
