"""The ground floor: errors, atomic files, device, strict models, code versions, provenance, packaged files."""
