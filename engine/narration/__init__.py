"""What a demo's stops say of the computed state: fields in their texts, and claims that are checked."""
