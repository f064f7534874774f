// SPDX-License-Identifier: Apache-2.0
// Which kernel a call is of: the same answer on host and device.
#pragma once

#include "client/gpu/kernels/gaf.h"
#include "client/gpu/kernels/graph.h"

namespace stoker::gpu {

STOKER_DEVICE uint32_t PhasesOf(const KernelCall& call, const Block& block) {
  switch (call.kind) {
    case KernelCall::kGaf:
      return GafKernel::Phases(call.gaf, block);
    case KernelCall::kRbf:
      return RbfKernel::Phases(call.rbf, block);
    case KernelCall::kFeatures:
      return FeatureKernel::Phases(call.features, block);
    case KernelCall::kBatch:
      return BatchKernel::Phases(call.batch, block);
    default:
      return LineGraphKernel::Phases(call.line_graph, block);
  }
}

STOKER_DEVICE void RunPhase(uint32_t phase, const KernelCall& call, const Block& block) {
  switch (call.kind) {
    case KernelCall::kGaf:
      return GafKernel::Run(phase, call.gaf, block, call.error);
    case KernelCall::kRbf:
      return RbfKernel::Run(phase, call.rbf, block, call.error);
    case KernelCall::kFeatures:
      return FeatureKernel::Run(phase, call.features, block, call.error);
    case KernelCall::kBatch:
      return BatchKernel::Run(phase, call.batch, block, call.error);
    default:
      return LineGraphKernel::Run(phase, call.line_graph, block, call.error);
  }
}

}  // namespace stoker::gpu
