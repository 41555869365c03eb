#include "coordinator/requests/wire_form.h"

#include <fmt/format.h>

#include <cstring>

namespace kvgrid::coordinator {

wire::ModelReply to_wire(const ModelRecord& record) {
    wire::ModelReply reply;
    reply.set_model(record.id.value);
    reply.set_spec_json(to_json(record.spec));
    reply.set_head_parts(record.grid.head_parts);
    reply.set_sequence_parts(record.grid.sequence_parts);
    reply.set_pool_bytes_per_worker(record.pool_bytes_per_worker);
    return reply;
}

wire::SequenceReply to_wire(const SequenceRecord& record) {
    wire::SequenceReply reply;
    reply.set_sequence(record.id.value);
    reply.set_model(record.model.value);
    reply.set_tenant(record.tenant);
    reply.set_parent(record.parent.value);
    reply.set_kept_tokens(prefix_tokens(record.prefix.size()));
    return reply;
}

Result<std::vector<PrefixHash>> prefix_from_wire(const google::protobuf::RepeatedPtrField<std::string>& names) {
    if (names.size() > kPrefixPagesMax) {
        return {Errc::invalid_argument,
                fmt::format("prefix names {} pages: at most {}, the first of a prompt", names.size(), kPrefixPagesMax)};
    }
    std::vector<PrefixHash> prefix(static_cast<std::size_t>(names.size()));
    for (std::size_t page = 0; page < prefix.size(); ++page) {
        const std::string& name = names[static_cast<int>(page)];
        if (name.size() != sizeof(PrefixHash)) {
            return {Errc::invalid_argument, fmt::format("prefix: the name of page {} has {} bytes: must have {}", page,
                                                        name.size(), sizeof(PrefixHash))};
        }
        std::memcpy(&prefix[page], name.data(), name.size());
    }
    return prefix;
}

wire::Membership to_wire(const Membership& membership, std::uint64_t term) {
    wire::Membership message;
    message.set_generation(membership.grid().generation.value);
    message.set_lost(membership.lost());
    message.set_term(term);
    for (const Member& member : membership.grid().members) {
        wire::Member& entry = *message.add_members();
        entry.set_worker(member.worker.value);
        entry.set_endpoint(member.process.endpoint);
        entry.set_mpi_rank(member.process.mpi_rank);
        entry.set_host(member.process.host);
        entry.set_process_id(member.process.process_id);
    }
    return message;
}

wire::Occupancy to_wire(const PoolOccupancy& pool) {
    wire::Occupancy occupancy;
    occupancy.set_model(pool.model.value);
    occupancy.set_page_bytes(pool.page_bytes);
    occupancy.set_capacity_pages(pool.capacity_pages);
    occupancy.set_free_pages(pool.free_pages);
    occupancy.set_used_pages(pool.used_pages);
    occupancy.set_reserved_pages(pool.reserved_pages);
    occupancy.set_shared_pages(pool.shared_pages);
    occupancy.set_sequences(pool.sequences);
    occupancy.set_stored_tokens(pool.stored_tokens);
    return occupancy;
}

PoolOccupancy from_wire(const wire::Occupancy& pool) {
    return {.model = ModelId{pool.model()},
            .page_bytes = pool.page_bytes(),
            .capacity_pages = pool.capacity_pages(),
            .free_pages = pool.free_pages(),
            .used_pages = pool.used_pages(),
            .reserved_pages = pool.reserved_pages(),
            .shared_pages = pool.shared_pages(),
            .sequences = pool.sequences(),
            .stored_tokens = pool.stored_tokens()};
}

}  // namespace kvgrid::coordinator
