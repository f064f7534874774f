// SPDX-License-Identifier: Apache-2.0
// The same batch of `bytes` in host memory again and again, for an assembler.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>

#include "client/gpu/assembler.h"
#include "client/src/batch_data.h"
#include "shared/segment/header.h"
#include "shared/tensor/layout.h"

namespace stoker::gpu {

inline absl::StatusOr<BatchSource> EndlessSource(uint64_t bytes) {
  absl::StatusOr<tensor::Layout> layout = tensor::Layout::Create({{"x", v1::DTYPE_U8, {static_cast<int64_t>(bytes)}}});
  if (!layout.ok()) return layout.status();
  const std::shared_ptr<uint8_t> extent(static_cast<uint8_t*>(::aligned_alloc(4096, layout->extent_bytes())), &::free);
  std::fill_n(extent.get(), layout->extent_bytes(), uint8_t{1});
  reinterpret_cast<segment::ExtentHeader*>(extent.get())->magic = segment::kExtentMagic;
  segment::WriteSequence(extent.get(), 1);
  v1::BatchDescriptor descriptor;
  descriptor.set_sequence(1);
  layout->Describe(&descriptor);
  auto data = std::make_shared<client::BatchData>(descriptor, extent.get(), extent, false);
  data->SetMapping({extent.get(), layout->extent_bytes()});
  BatchSource source;
  source.info.mutable_largest()->set_extent_bytes(layout->extent_bytes());
  source.next = [data](absl::Duration) { return std::optional<Batch>(Batch(data)); };
  return source;
}

}  // namespace stoker::gpu
