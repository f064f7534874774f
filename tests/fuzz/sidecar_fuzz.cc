// SPDX-License-Identifier: Apache-2.0
// The first byte says as what the others are read: text by id in CSV or JSONL, arrays, or the table of atom features.
#include "server/ingest/sidecar.h"

#include <array>
#include <filesystem>

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const stoker::fuzz::MemoryFile file(stoker::fuzz::View(data + 1, size - 1));
  constexpr std::array<const char*, 4> kExtensions = {".csv", ".jsonl", ".npy", ".npz"};
  if (data[0] % 5 == 4) {
    stoker::fuzz::CheckStatus(stoker::ingest::ReadAtomFeatures(file.path()).status());
    return 0;
  }
  // The kind of a sidecar is in its name.
  const std::string link = absl::StrCat(std::filesystem::temp_directory_path().string(), "/stoker_fuzz-", ::getpid(),
                                        kExtensions[data[0] % 5]);
  std::error_code error;
  std::filesystem::remove(link, error);
  std::filesystem::create_symlink(file.path(), link, error);
  stoker::v1::Sidecar sidecar;
  sidecar.set_name("extra");
  sidecar.set_path(link);
  stoker::fuzz::CheckStatus(stoker::ingest::ReadSidecar(sidecar, {{"a", "b", ""}, {0, 1, 7}}).status());
  std::filesystem::remove(link, error);
  return 0;
}
