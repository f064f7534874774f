// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_writer.h"

#include <cstring>

namespace stoker::transforms {

LineWriter::LineWriter(const GafKernels* kernels, size_t room_bytes)
    : kernels_(kernels), buffer_(hwy::AllocateAligned<uint8_t>(room_bytes + 2 * kCacheLineBytes)) {}

void LineWriter::Begin(void* destination) {
  begin_ = end_ = reinterpret_cast<uintptr_t>(destination) % kCacheLineBytes;
  line_ = static_cast<uint8_t*>(destination) - begin_;
}

void LineWriter::Commit(size_t bytes) {
  end_ += bytes;
  const size_t whole = end_ / kCacheLineBytes * kCacheLineBytes;
  if (whole == 0) return;
  uint8_t* buffer = buffer_.get();
  size_t streamed = 0;
  if (begin_ != 0) {  // the first line is shared with what lies before
    std::memcpy(line_ + begin_, buffer + begin_, kCacheLineBytes - begin_);
    streamed = kCacheLineBytes;
    begin_ = 0;
  }
  kernels_->stream_lines(buffer + streamed, line_ + streamed, (whole - streamed) / kCacheLineBytes);
  if (end_ != whole) std::memcpy(buffer, buffer + whole, kCacheLineBytes);
  line_ += whole;
  end_ -= whole;
}

void LineWriter::End() {
  if (end_ > begin_) std::memcpy(line_ + begin_, buffer_.get() + begin_, end_ - begin_);
  begin_ = end_ = 0;
}

}  // namespace stoker::transforms
