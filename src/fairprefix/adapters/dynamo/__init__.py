"""D2LPM between the workers of NVIDIA Dynamo, and DLPM in front of each of them: a component of its own.

    python -m fairprefix.adapters.dynamo --endpoint dynamo.backend.generate --model-path MODEL --model-name NAME \
        --backend-model BACKEND

See docs/integrate/dynamo.md.
"""
