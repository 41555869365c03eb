#include "kernels/cuda/peer_exchange.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/flagged_words.cuh"
#include "kernels/cuda/merged_output.cuh"

namespace kvgrid::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kBlocksMax = 32;  // a few SMs' worth: kernels of other ranks may be on the same GPU
constexpr int kGroupLanes = PeerMailbox::kGroupDims / 4;

struct Header {
    std::uint32_t epoch;         // exchanges that are over
    std::uint32_t blocks_done;   // of the one that is under way
    std::uint32_t acknowledged;  // exchanges that the root is through with; written by it
};

__device__ Header* header_of(std::byte* mailbox) {
    return reinterpret_cast<Header*>(mailbox);
}

// ---- across GPUs

__device__ __forceinline__ void push(float4* to, const float4& words) {
    asm volatile("st.relaxed.sys.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(filled(words.x)),
                 "f"(filled(words.y)), "f"(filled(words.z)), "f"(filled(words.w))
                 : "memory");
}
__device__ __forceinline__ void push(float* to, float word) {
    asm volatile("st.relaxed.sys.global.f32 [%0], %1;" ::"l"(to), "f"(filled(word)) : "memory");
}
__device__ __forceinline__ float4 look(const float4* from) {
    float4 words;
    asm volatile("ld.relaxed.sys.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(words.x), "=f"(words.y), "=f"(words.z), "=f"(words.w)
                 : "l"(from)
                 : "memory");
    return words;
}
__device__ __forceinline__ float look(const float* from) {
    float word;
    asm volatile("ld.relaxed.sys.global.f32 %0, [%1];" : "=f"(word) : "l"(from) : "memory");
    return word;
}
__device__ __forceinline__ std::uint32_t acquire(const std::uint32_t* from) {
    std::uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
}
__device__ __forceinline__ void release(std::uint32_t* to, std::uint32_t value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ std::uint64_t now_ns() {
    std::uint64_t time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

// How long a thread waits in all.
class Patience {
  public:
    __device__ explicit Patience(const PeerExchange& work) : work_(work), began_(now_ns()) {}

    // Calls has_come() until it is true. False: it was not in time; nothing is waited for from then on.
    template <class HasCome>
    __device__ __forceinline__ bool wait(const HasCome& has_come) {
        for (int turn = 1; !has_come(); ++turn) {
            if (is_over_) return false;
            if (turn % kTurnsBetweenLooks == 0) look_at_clock();
        }
        return true;
    }
    __device__ bool is_over() const { return is_over_; }

  private:
    static constexpr int kTurnsBetweenLooks = 64;

    __device__ void look_at_clock() {
        is_over_ = now_ns() - began_ > work_.timeout_ns || *work_.abort != 0;
        if (is_over_) *work_.failed = 1;
    }

    const PeerExchange& work_;
    const std::uint64_t began_;
    bool is_over_ = false;
};

// Four dims of a row, and the row's log-sum-exp.
struct Piece {
    float4 value;
    float lse;
};

// What one rank brings to one exchange, in the root's mailbox.
class Slot {
  public:
    __device__ Slot(std::byte* root_mailbox, const PeerExchange& work, std::uint32_t epoch, int rank,
                    std::size_t row_count)
        : groups_(PeerMailbox::groups_of(work.head_dim)) {
        std::byte* const slots = root_mailbox + PeerMailbox::kHeaderBytes;
        const std::size_t index = static_cast<std::size_t>(epoch % 2) * work.rank_count + rank;
        values_ = reinterpret_cast<float*>(slots + index * PeerMailbox::kSlotBytes);
        lses_ = values_ + row_count * groups_ * PeerMailbox::kGroupDims;
    }

    // Eight lanes have a group of a row; those beyond the head's dims bring nothing.
    __device__ __forceinline__ void bring(std::size_t row, int dim, const Piece& piece) const {
        push(value_at(row, dim), piece.value);
        if (dim % PeerMailbox::kGroupDims == 0) push(lse_at(row, dim), piece.lse);
    }
    __device__ __forceinline__ bool take(std::size_t row, int dim, Piece& piece, Patience& patience) const {
        return patience.wait([&] {
            piece = {look(value_at(row, dim)), look(lse_at(row, dim))};
            return is_whole(piece.value) && !is_empty(piece.lse);
        });
    }
    // After all lanes of the group have taken theirs.
    __device__ __forceinline__ void empty(std::size_t row, int dim) const {
        empty_words(value_at(row, dim));
        if (dim % PeerMailbox::kGroupDims == 0) *lse_at(row, dim) = __uint_as_float(kEmptyWord);
    }

  private:
    __device__ float4* value_at(std::size_t row, int dim) const {
        return reinterpret_cast<float4*>(values_ + row * groups_ * PeerMailbox::kGroupDims + dim);
    }
    __device__ float* lse_at(std::size_t row, int dim) const {
        return lses_ + row * groups_ + dim / PeerMailbox::kGroupDims;
    }

    std::size_t groups_;
    float* values_;
    float* lses_;
};

__device__ Piece own_piece(const PeerExchange& work, std::size_t row, int dim) {
    return {*reinterpret_cast<const float4*>(work.partial + row * work.head_dim + dim), work.lse[row]};
}

// Sums of pieces weighted by exp(lse - origin). A piece that saw nothing may hold anything.
class Merged {
  public:
    __device__ __forceinline__ void add(const Piece& piece) {
        if (piece.lse == -INFINITY) return;
        const float origin = fmaxf(origin_, piece.lse);
        const float before = weight_ == 0 ? 0 : expf(origin_ - origin), added = expf(piece.lse - origin);
        value_ = {before * value_.x + added * piece.value.x, before * value_.y + added * piece.value.y,
                  before * value_.z + added * piece.value.z, before * value_.w + added * piece.value.w};
        weight_ = before * weight_ + added;
        origin_ = origin;
    }
    __device__ __forceinline__ float4 value() const {
        const float inverse = weight_ == 0 ? 0 : 1 / weight_;
        return {inverse * value_.x, inverse * value_.y, inverse * value_.z, inverse * value_.w};
    }

  private:
    float4 value_ = {0, 0, 0, 0};
    float origin_ = -INFINITY, weight_ = 0;
};

// Calls act(row, dim) for this thread's share of the rows: eight neighbouring lanes have the same row and 32 dims of it.
template <class Act>
__device__ __forceinline__ void for_each_piece(const PeerExchange& work, std::size_t row_count, const Act& act) {
    const std::size_t groups = PeerMailbox::groups_of(work.head_dim), count = row_count * groups;
    const std::size_t first = (blockIdx.x * std::size_t{kThreads} + threadIdx.x) / kGroupLanes;
    const std::size_t stride = std::size_t{kThreads} / kGroupLanes * gridDim.x;
    for (std::size_t index = first; index < count; index += stride) {
        const int dim = static_cast<int>(index % groups) * PeerMailbox::kGroupDims + threadIdx.x % kGroupLanes * 4;
        act(index / groups, dim);
    }
}

__device__ int head_part_of(const PeerExchange& work, int head) {
    int part = 0;
    while (work.first_heads[part + 1] <= head) ++part;
    return part;
}

__device__ __forceinline__ std::size_t rows_of_part(const PeerExchange& work, int head_part) {
    const int heads = work.first_heads[head_part + 1] - work.first_heads[head_part];
    return static_cast<std::size_t>(work.token_count) * heads;
}

__device__ void push_rows(const PeerExchange& work, std::uint32_t epoch, Patience& patience) {
    const std::uint32_t* const acknowledged = &header_of(work.mailboxes[work.rank])->acknowledged;
    if (!patience.wait([&] { return static_cast<std::int32_t>(acquire(acknowledged) + 1 - epoch) >= 0; })) return;
    const std::size_t row_count = rows_of_part(work, work.rank / work.sequence_parts);
    const Slot slot(work.mailboxes[work.root], work, epoch, work.rank, row_count);
    for_each_piece(work, row_count, [&](std::size_t row, int dim) {
        if (dim < work.head_dim) slot.bring(row, dim, own_piece(work, row, dim));
    });
}

__device__ void merge_rows(const PeerExchange& work, std::uint32_t epoch, Patience& patience) {
    const int head_count = work.first_heads[work.rank_count / work.sequence_parts];
    for_each_piece(work, static_cast<std::size_t>(work.token_count) * head_count, [&](std::size_t whole_row, int dim) {
        const std::size_t token = whole_row / head_count;
        const int head = static_cast<int>(whole_row % head_count), part = head_part_of(work, head);
        const int part_heads = work.first_heads[part + 1] - work.first_heads[part];
        const std::size_t row = token * part_heads + head - work.first_heads[part];
        const bool has_dims = dim < work.head_dim;
        Merged merged;
        for (int rank = part * work.sequence_parts; rank < (part + 1) * work.sequence_parts; ++rank) {
            if (rank == work.root) {
                if (has_dims) merged.add(own_piece(work, row, dim));
                continue;
            }
            const Slot slot(work.mailboxes[work.root], work, epoch, rank, rows_of_part(work, part));
            Piece piece{};
            const bool has_come = has_dims && slot.take(row, dim, piece, patience);
            __syncwarp(0xffu << (threadIdx.x % 32 & 24));
            if (!has_come) continue;
            slot.empty(row, dim);
            merged.add(piece);
        }
        if (!has_dims || patience.is_over()) return;
        store_merged(work.merged, work.dtype, whole_row * work.head_dim + dim, merged.value());
    });
}

// The block that ends last ends the exchange.
__device__ void finish(const PeerExchange& work, std::uint32_t epoch) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    Header* const header = header_of(work.mailboxes[work.rank]);
    __threadfence_system();  // what this block has emptied, before the acknowledgement
    if (atomicAdd(&header->blocks_done, 1) + 1 < gridDim.x) return;
    __threadfence_system();
    header->blocks_done = 0;
    header->epoch = epoch + 1;
    if (work.rank != work.root) return;
    for (int rank = 0; rank < work.rank_count; ++rank) {
        if (rank != work.root) release(&header_of(work.mailboxes[rank])->acknowledged, epoch + 1);
    }
}

__global__ __launch_bounds__(kThreads) void exchange_rows_kernel(const __grid_constant__ PeerExchange work) {
    const std::uint32_t epoch = header_of(work.mailboxes[work.rank])->epoch;
    Patience patience(work);
    if (work.rank == work.root) {
        merge_rows(work, epoch, patience);
    } else {
        push_rows(work, epoch, patience);
    }
    finish(work, epoch);
}

void require(bool kept, const char* rule) {
    if (!kept) throw std::invalid_argument(std::string("exchange_rows: ") + rule);
}

bool is_aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

void check(const PeerExchange& work) {
    require(work.rank_count >= 2 && work.rank_count <= static_cast<int>(PeerMailbox::kRanksMax),
            "there must be 2 to 16 ranks");
    require(work.rank >= 0 && work.rank < work.rank_count && work.root >= 0 && work.root < work.rank_count,
            "rank and root must be ranks");
    require(work.sequence_parts >= 1 && work.rank_count % work.sequence_parts == 0,
            "the ranks must be sequence parts of whole head parts");
    require(work.token_count >= 0 && work.head_dim >= 4 && work.head_dim % 4 == 0,
            "head_dim must be a positive multiple of 4");
    require(work.first_heads[0] == 0, "heads begin at 0");
    for (int part = 0; part < work.rank_count / work.sequence_parts; ++part) {
        const int heads = work.first_heads[part + 1] - work.first_heads[part];
        require(heads >= 1, "each head part must have heads");
        require(PeerMailbox::slot_bytes(static_cast<std::size_t>(work.token_count) * heads, work.head_dim) <=
                    PeerMailbox::kSlotBytes,
                "the rows of a rank do not fit into a slot");
    }
    require(is_aligned(work.partial) && is_aligned(work.merged), "partial and merged must be aligned to 16 bytes");
    require(work.partial != nullptr && work.lse != nullptr && work.mailboxes[work.rank] != nullptr &&
                work.mailboxes[work.root] != nullptr && work.abort != nullptr && work.failed != nullptr,
            "a pointer is missing");
    require(work.rank != work.root || work.merged != nullptr, "the root has no place for the outcome");
}

std::size_t row_count_of(const PeerExchange& work) {
    const int part = work.rank / work.sequence_parts;
    const int heads = work.rank == work.root ? work.first_heads[work.rank_count / work.sequence_parts]
                                             : work.first_heads[part + 1] - work.first_heads[part];
    return static_cast<std::size_t>(work.token_count) * heads;
}

}  // namespace

void reset_peer_mailbox(DeviceSpan<std::byte> mailbox) {
    const std::size_t header = std::min(mailbox.size, PeerMailbox::kHeaderBytes);
    check_cuda(cudaMemset(mailbox.data, 0, header), "cudaMemset of a mailbox");
    check_cuda(cudaMemset(mailbox.data + header, 0xff, mailbox.size - header), "cudaMemset of a mailbox's slots");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void load_peer_exchange() {
    cudaFuncAttributes attributes;
    check_cuda(cudaFuncGetAttributes(&attributes, exchange_rows_kernel), "cudaFuncGetAttributes");
}

void exchange_rows(const PeerExchange& work, Stream stream) {
    check(work);
    const std::size_t threads = row_count_of(work) * PeerMailbox::groups_of(work.head_dim) * kGroupLanes;
    const std::size_t blocks = std::clamp<std::size_t>((threads + kThreads - 1) / kThreads, 1, kBlocksMax);
    exchange_rows_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(work);
    check_launch("exchange_rows_kernel");
}

}  // namespace kvgrid::kernels
