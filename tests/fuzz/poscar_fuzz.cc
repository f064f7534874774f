// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/poscar_reader.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)stoker::fuzz::CheckFound(stoker::ingest::ReadPoscar(stoker::fuzz::View(data, size), "fuzz"));  // aborts itself
  return 0;
}
