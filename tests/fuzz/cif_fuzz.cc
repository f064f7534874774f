// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/cif_reader.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  stoker::fuzz::CheckStatus(
      stoker::ingest::ReadCif(stoker::fuzz::View(data, size), "fuzz",
                              [](uint64_t, auto structure) { return stoker::fuzz::CheckFound(std::move(structure)); }));
  return 0;
}
