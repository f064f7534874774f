// SPDX-License-Identifier: Apache-2.0
// Headers of .npy, directories of .npz, and the arrays in both.
#include "server/ingest/npy_array.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kReadBytes = 1 << 20;
  stoker::v1::IngestOptions options;
  options.set_format(stoker::v1::NPY);
  stoker::fuzz::ReadSeries(stoker::fuzz::View(data, size), options);
  if (size == 0) return 0;
  const stoker::fuzz::MemoryFile file(stoker::fuzz::View(data, size));
  absl::StatusOr<stoker::ingest::NpyArray> array = stoker::ingest::NpyArray::Open(file.path(), "");
  stoker::fuzz::CheckStatus(array.status());
  std::string bytes;
  if (!array.ok() || array->header().row_bytes() > kReadBytes) return 0;
  const absl::Status status = array->ReadRows(0, 1, &bytes);
  stoker::fuzz::CheckStatus(status);
  if (status.ok() && !bytes.empty()) (void)stoker::ingest::DecodeLabel(array->header(), bytes.data());  // runs, or not
  return 0;
}
