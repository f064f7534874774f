// SPDX-License-Identifier: Apache-2.0
// In builds without CUDA.
#include "client/gpu/cuda_runtime.h"

namespace stoker::gpu {

absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaRuntime(int) {
  return absl::UnavailableError("this build of stoker has no CUDA: build with STOKER_CUDA=ON where nvcc is");
}

}  // namespace stoker::gpu
