#pragma once

#include <string>
#include <vector>

#include "comm/wire/kvgrid.pb.h"
#include "coordinator/catalogue.h"
#include "coordinator/grid.h"
#include "coordinator/membership.h"

namespace kvgrid::coordinator {

wire::ModelReply to_wire(const ModelRecord& record);
wire::SequenceReply to_wire(const SequenceRecord& record);
// `invalid_argument`: too many names, or one of another length.
Result<std::vector<PrefixHash>> prefix_from_wire(const google::protobuf::RepeatedPtrField<std::string>& names);
wire::Membership to_wire(const Membership& membership, std::uint64_t term);
wire::Occupancy to_wire(const PoolOccupancy& pool);
PoolOccupancy from_wire(const wire::Occupancy& pool);

}  // namespace kvgrid::coordinator
