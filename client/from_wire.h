#pragma once

#include "client/kvgrid.h"
#include "comm/wire/kvgrid.pb.h"

namespace kvgrid {

// Messages of the wire as the types of the public interface.
ClusterStatus from_wire(const wire::StatusReply& reply);
Result<RegisteredModel> from_wire(const wire::ModelReply& reply);  // corrupt: no model spec in it
GridOccupancy from_wire(const wire::OccupancyReply& reply);
SequencePage from_wire(const wire::ListSequencesReply& reply);
Result<GridTrace> from_wire(const wire::TraceReply& reply);  // corrupt: a span of no kind
SequenceInfo from_wire(const wire::InspectSequenceReply& reply);

// And the other way.
void put(std::span<const PrefixHash> prefix, google::protobuf::RepeatedPtrField<std::string>& names);

}  // namespace kvgrid
