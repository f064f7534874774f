// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/cuda_launch.h"
#include "client/gpu/kernels/run.h"

namespace stoker::gpu {
namespace {

__global__ void __launch_bounds__(kBlockThreads) RunProgram(const __grid_constant__ Program program) {
  extern __shared__ __align__(16) unsigned char shared[];
  uint32_t index = blockIdx.x;
  int c = 0;
  while (index >= program.calls[c].blocks) index -= program.calls[c++].blocks;
  const KernelCall& call = program.calls[c];
  const Block block = {index, call.blocks, threadIdx.x, shared};
  const uint32_t phases = PhasesOf(call, block);
  for (uint32_t phase = 0; phase < phases; ++phase) {
    if (phase > 0) __syncthreads();
    RunPhase(phase, call, block);
  }
}

}  // namespace

cudaError_t PrepareLaunch(int max_shared_bytes) {
  return cudaFuncSetAttribute(RunProgram, cudaFuncAttributeMaxDynamicSharedMemorySize, max_shared_bytes);
}

cudaError_t LaunchProgram(const Program& program, uint32_t blocks, uint32_t shared_bytes, cudaStream_t stream) {
  RunProgram<<<blocks, kBlockThreads, shared_bytes, stream>>>(program);
  return cudaGetLastError();
}

}  // namespace stoker::gpu
