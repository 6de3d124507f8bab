"""Configuration: pydantic models from which the YAML defaults and the JSON schema are generated."""
