// SPDX-License-Identifier: Apache-2.0
// The device runtime on an NVIDIA GPU. Queues are cudaStream_t, events cudaEvent_t, so the stream of another library is
// a Queue as it is; the legacy default stream is one too (null), though it waits for all others.
#pragma once

#include <memory>

#include "client/gpu/device_runtime.h"

namespace stoker::gpu {

// Device `device` by CUDA's numbering. Unavailable, with the reason, when there is none, the driver is too old, or this
// build has no CUDA (STOKER_CUDA=OFF, or no nvcc when it was built): HostRuntime does the same work then, more
// slowly, and OpenCudaOrHostRuntime (host_runtime.h) takes it by itself.
absl::StatusOr<std::unique_ptr<DeviceRuntime>> OpenCudaRuntime(int device);

}  // namespace stoker::gpu
