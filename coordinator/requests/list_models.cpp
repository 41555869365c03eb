#include "coordinator/requests/requests.h"
#include "coordinator/requests/wire_form.h"

namespace kvgrid::coordinator {

Result<wire::ListModelsReply> list_models(Coordinator& coordinator, const wire::Empty&) {
    auto models = coordinator.catalogue().models();
    if (!models) return models.error();
    wire::ListModelsReply reply;
    for (const ModelRecord& model : *models) {
        if (model.confirmed) *reply.add_models() = to_wire(model);
    }
    return reply;
}

}  // namespace kvgrid::coordinator
