// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/extxyz_reader.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const stoker::ingest::RecordKeys keys = {"name", {"energy"}};
  stoker::fuzz::CheckStatus(stoker::ingest::ReadExtxyz(
      stoker::fuzz::View(data, size), "fuzz", 1, size % 2 == 0 ? keys : stoker::ingest::RecordKeys{},
      [](uint64_t, auto structure) { return stoker::fuzz::CheckFound(std::move(structure)); }));
  return 0;
}
