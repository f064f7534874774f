// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/kernels/program.h"

#include <algorithm>
#include <vector>

#include "client/gpu/kernels/host_grid.h"
#include "client/gpu/kernels/run.h"

namespace stoker::gpu {
namespace {

// Enough blocks for a large device, few enough that a small tensor has no idle ones.
constexpr int64_t kMaxBlocks = 2048;
constexpr int64_t kBytesPerBlock = int64_t{kBlockThreads} * kChunkBytes;

uint32_t BlocksFor(int64_t elements, Element dtype) {
  const int64_t bytes = elements * (dtype == Element::kF32 ? 4 : 2);
  return static_cast<uint32_t>(std::clamp<int64_t>((bytes + kBytesPerBlock - 1) / kBytesPerBlock, 0, kMaxBlocks));
}

KernelCall Call(KernelCall::Kind kind, uint32_t blocks, uint32_t shared_bytes, uint32_t* error) {
  KernelCall call = {};
  call.kind = kind;
  call.blocks = blocks;
  call.shared_bytes = shared_bytes;
  call.error = error;
  return call;
}

}  // namespace

KernelCall CallOf(const GafArgs& args, uint32_t* error) {
  // A window of 96 points is enough for one block; large images are shared out, each block making the points again.
  constexpr int64_t kPixelsPerBlock = 65536;
  GafArgs sliced = args;
  sliced.slices = static_cast<uint32_t>(std::clamp<int64_t>(args.size * args.size / kPixelsPerBlock, 1, 64));
  KernelCall call = Call(KernelCall::kGaf, static_cast<uint32_t>(args.samples * args.channels * sliced.slices),
                         GafKernel::SharedBytes(args), error);
  call.gaf = sliced;
  return call;
}

KernelCall CallOf(const RbfArgs& args) {
  KernelCall call = Call(KernelCall::kRbf, BlocksFor(args.edges * args.bins, args.dtype), 0, nullptr);
  call.rbf = args;
  return call;
}

KernelCall CallOf(const FeatureArgs& args, uint32_t* error) {
  KernelCall call = Call(KernelCall::kFeatures, BlocksFor(args.nodes * args.features, args.dtype), 0, error);
  call.features = args;
  return call;
}

KernelCall CallOf(const BatchArgs& args) {
  KernelCall call = Call(KernelCall::kBatch, static_cast<uint32_t>(std::max<int64_t>(args.graphs, 1)),
                         GraphSums::kSharedBytes, nullptr);
  call.batch = args;
  return call;
}

KernelCall CallOf(const LineGraphArgs& args, uint32_t* error) {
  // Blocks enough for a large device from a batch of few graphs; a slice has to count what the others write.
  LineGraphArgs sliced = args;
  sliced.slices = args.graphs >= 256 ? 1 : 2;
  KernelCall call = Call(KernelCall::kLineGraph, static_cast<uint32_t>(args.graphs) * sliced.slices,
                         sizeof(LineGraphKernel::Shared), error);
  call.line_graph = sliced;
  return call;
}

void RunOnHost(const Program& program) {
  for (int c = 0; c < program.count; ++c) {
    const KernelCall& call = program.calls[c];
    // Of exactly the size that the call names, so that a step beyond it is found.
    std::vector<Chunk> shared((call.shared_bytes + kChunkBytes - 1) / kChunkBytes);
    Block block = {0, call.blocks, 0, reinterpret_cast<unsigned char*>(shared.data())};
    for (; block.index < call.blocks; ++block.index) {
      const uint32_t phases = PhasesOf(call, block);
      for (uint32_t phase = 0; phase < phases; ++phase) {
        // Forwards in one block and backwards in the next: threads that rely on an order within a phase are found.
        for (uint32_t t = 0; t < kBlockThreads; ++t) {
          block.thread = block.index % 2 == 0 ? t : kBlockThreads - 1 - t;
          RunPhase(phase, call, block);
        }
      }
    }
  }
}

}  // namespace stoker::gpu
