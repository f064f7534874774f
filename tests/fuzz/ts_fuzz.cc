// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  stoker::v1::IngestOptions options;
  options.set_format(stoker::v1::TS);
  options.set_missing(size % 2 == 0 ? stoker::v1::IngestOptions::MISSING_LINEAR
                                    : stoker::v1::IngestOptions::MISSING_ERROR);
  stoker::fuzz::ReadSeries(stoker::fuzz::View(data, size), options);
  return 0;
}
