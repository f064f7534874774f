// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/id_prop.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const stoker::fuzz::MemoryFile file(stoker::fuzz::View(data, size));
  const stoker::ingest::IdPropRange range = {file.path(), 0, size, 1};
  stoker::fuzz::CheckStatus(
      stoker::ingest::ReadIdProp(range, [&](uint64_t, const std::vector<absl::string_view>& fields) {
        stoker::fuzz::CheckStatus(stoker::ingest::FindStructureFile("/nowhere/id_prop.csv", fields[0]).status());
        stoker::fuzz::CheckStatus(stoker::ingest::IdPropTargets(fields, {}, "fuzz").status());
        return absl::OkStatus();
      }));
  return 0;
}
