// SPDX-License-Identifier: Apache-2.0
// Writes one run of bytes to memory that nobody here will read: whole cache lines past the caches, the parts of lines
// at its two ends by ordinary stores, so that runs may follow each other without a gap. Whoever makes the bytes puts
// them into a small buffer, whose lines lie as those of the destination do. One thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hwy/aligned_allocator.h"
#include "server/transforms/gaf_kernels.h"

namespace stoker::transforms {

class LineWriter {
 public:
  // `room_bytes`: the most that is put at Next() before a Commit().
  LineWriter(const GafKernels* kernels, size_t room_bytes);

  void Begin(void* destination);
  // Where the next bytes of the run go.
  uint8_t* Next() { return buffer_.get() + end_; }
  // `bytes` more at Next() are final. Invalidates Next().
  void Commit(size_t bytes);
  // The rest of the run.
  void End();

 private:
  const GafKernels* kernels_;
  hwy::AlignedFreeUniquePtr<uint8_t[]> buffer_;
  uint8_t* line_ = nullptr;  // where buffer_[0] belongs, a multiple of a line
  size_t begin_ = 0;         // buffer_[begin_, end_) is of this run and not yet written
  size_t end_ = 0;
};

}  // namespace stoker::transforms
