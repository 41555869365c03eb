#pragma once

#include "comm/wire/kvgrid.pb.h"
#include "coordinator/catalogue.h"
#include "coordinator/grid.h"
#include "coordinator/membership.h"

namespace kvgrid::coordinator {

wire::ModelReply to_wire(const ModelRecord& record);
wire::SequenceReply to_wire(const SequenceRecord& record);
wire::Membership to_wire(const Membership& membership, std::uint64_t term);
wire::Occupancy to_wire(const PoolOccupancy& pool);
PoolOccupancy from_wire(const wire::Occupancy& pool);

}  // namespace kvgrid::coordinator
