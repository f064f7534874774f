// SPDX-License-Identifier: Apache-2.0
// How calls of CUDA are found and their errors told. Only files that are built where CUDA is include this.
#pragma once

#include <cuda.h>  // types only; the driver's library is opened by the CUDA runtime
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shared/base/status_macros.h"

namespace stoker::gpu {

// The one way from CUDA's errors to ours, the driver's too, which have the runtime's numbers. CUDA remembers the error
// and would give it to the next, innocent call: forgotten here.
absl::Status ToStatus(cudaError_t error, absl::string_view call, uint64_t bytes = 0);
inline absl::Status ToStatus(CUresult error, absl::string_view call, uint64_t bytes = 0) {
  return ToStatus(static_cast<cudaError_t>(error), call, bytes);
}

// A function of the driver, by name. Unavailable when it has none.
absl::StatusOr<void*> FindDriverFunction(const char* name);

template <typename Function>
absl::Status Find(const char* name, Function* function) {
  STOKER_ASSIGN_OR_RETURN(void* const address, FindDriverFunction(name));
  *function = reinterpret_cast<Function>(address);
  return absl::OkStatus();
}

}  // namespace stoker::gpu
