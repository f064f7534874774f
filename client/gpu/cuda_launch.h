// SPDX-License-Identifier: Apache-2.0
// The one kernel of the device, between the compiler that builds it and the one that builds the rest.
#pragma once

#include <cuda_runtime_api.h>

#include "client/gpu/kernels/program.h"

namespace stoker::gpu {

// Once a device, before the first launch: lets blocks have as much shared memory as the device gives.
cudaError_t PrepareLaunch(int max_shared_bytes);
// Queues the program. REQUIRES: it has a block.
cudaError_t LaunchProgram(const Program& program, uint32_t blocks, uint32_t shared_bytes, cudaStream_t stream);

}  // namespace stoker::gpu
