// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/gpu/kernels/program.h"

namespace stoker::gpu {

// Runs all kernels of the program over their grids on the calling thread: blocks one after the other, and within a
// block phase by phase all threads. What the device does, but for the order of what has none.
void RunOnHost(const Program& program);

}  // namespace stoker::gpu
