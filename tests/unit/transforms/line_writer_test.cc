// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/line_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "hwy/cache_control.h"

namespace stoker::transforms {
namespace {

// Writes `size` counting bytes at `offset` in turns of `turn` bytes, among bytes that must stay 0xee.
void WriteRun(LineWriter& writer, uint8_t* memory, size_t offset, size_t size, size_t turn, uint8_t first) {
  writer.Begin(memory + offset);
  for (size_t done = 0; done < size; done += turn) {
    const size_t bytes = std::min(turn, size - done);
    uint8_t* next = writer.Next();
    for (size_t i = 0; i < bytes; ++i) next[i] = static_cast<uint8_t>(first + done + i);
    writer.Commit(bytes);
  }
  writer.End();
}

TEST(LineWriter, AnyPlaceAndSize_WritesItsBytesAndNoOthers) {
  hwy::AlignedFreeUniquePtr<uint8_t[]> memory = hwy::AllocateAligned<uint8_t>(1024);
  for (const GafKernels* kernels : SupportedGafKernels()) {
    LineWriter writer(kernels, 512);
    for (const size_t offset : {0, 1, 2, 63, 64, 65, 100, 127}) {
      for (const size_t size : {0, 1, 2, 62, 63, 64, 65, 127, 128, 129, 300, 640}) {
        for (const size_t turn : {1, 7, 64, 96, 512}) {
          std::memset(memory.get(), 0xee, 1024);
          WriteRun(writer, memory.get(), offset, size, turn, 3);
          hwy::FlushStream();
          for (size_t i = 0; i < 1024; ++i) {
            const bool inside = i >= offset && i < offset + size;
            ASSERT_EQ(memory[i], inside ? static_cast<uint8_t>(3 + i - offset) : 0xee)
                << kernels->name << " offset " << offset << " size " << size << " turn " << turn << " byte " << i;
          }
        }
      }
    }
  }
}

TEST(LineWriter, RunsWithoutAGap_ShareALine) {
  hwy::AlignedFreeUniquePtr<uint8_t[]> memory = hwy::AllocateAligned<uint8_t>(1024);
  LineWriter writer(SupportedGafKernels().front(), 512);
  for (size_t run = 0; run < 10; ++run)
    WriteRun(writer, memory.get(), run * 100, 100, 30, static_cast<uint8_t>(run * 100));
  hwy::FlushStream();
  for (size_t i = 0; i < 1000; ++i) ASSERT_EQ(memory[i], static_cast<uint8_t>(i));
}

}  // namespace
}  // namespace stoker::transforms
